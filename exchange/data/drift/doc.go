// Package drift decides about named data, and does nothing: what an environment is to do
// about a body that it should or should not hold ([Decide]), and how far each environment is
// behind ([Lags]).
//
// The record of a body in the fleet's bucket is what is desired, the file on an
// environment's disk is what is, and what the environment noted when it last verified the
// file ([Held]) lets most looks end without reading the file. A record that is not there
// orders nothing: only one that says so removes a file.
package drift

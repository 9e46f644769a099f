// Package planreport says what a plan is: the matching matrix, who runs where and why,
// what waits and what would help, the use of every environment, the totals with their
// certified gap, and a comparison with doing it otherwise. `fleetbus plan` prints it.
//
// [Build] makes a [Report] of a fleet file; [Report.Write] prints it for people, and
// encoding/json gives one object with the keys that the fields' tags name. Numbers in it
// are rounded to twelve significant digits, so that 61.7 reads 61.7; what is infinite is
// null.
package planreport

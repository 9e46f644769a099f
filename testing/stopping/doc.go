// Package stopping measures how fast robots stop: a fleet of real processes under
// request load, of which every robot has an action that runs. All are stopped at once,
// and the links of some are cut. The benchmark `stop` and a test of package e2e share it.
package stopping

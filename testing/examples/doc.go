// Package examples runs what stands in examples/: the commands of its READMEs against a real
// fleet of processes, the parts that decide on their own, and the errors that users make.
//
// Python is run with nats-py where it is installed, else with a stand-in for it
// (testdata/standin), so that the examples are run everywhere. TypeScript is checked by tsc
// and run by Node with the packages of examples/typescript/package-lock.json, which `make
// deps` installs. ROS 2 is not needed: the node's own code runs against a stand-in for rclpy.
package examples

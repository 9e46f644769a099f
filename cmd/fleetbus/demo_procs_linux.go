package main

import "syscall"

// childAttr gives a child a process group of its own, and ends it when the demo dies,
// whatever it dies of.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

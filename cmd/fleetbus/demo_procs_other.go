//go:build !unix

package main

import "syscall"

// childAttr gives a child nothing of its own where there are no process groups.
func childAttr() *syscall.SysProcAttr { return nil }

//go:build !linux

package heap

// resident is not known here.
func resident() int64 { return 0 }

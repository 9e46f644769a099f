//go:build !linux

package monitor

// affinity are the names of the cores that this process may use; nil where that is not known.
func affinity() map[string]bool { return nil }

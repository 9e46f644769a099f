//go:build !unix

package bodyfile

// lock does nothing where files cannot be locked for the life of a process: run one holder
// on a directory.
func lock(string) (unlock func(), err error) { return func() {}, nil }

// IsFull is not known here; the error itself says it.
func IsFull(error) bool { return false }

package embed

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock locks f exclusively or returns errLocked. It locks one byte far behind the
// text, so that others can read who holds it.
func tryLock(f *os.File) error {
	far := &windows.Overlapped{Offset: 1 << 20}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, far)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errLocked
	}
	return err
}

package bodyfile

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Stamp changes with whatever rewrites a file: unlike the time of modification, that of
// change cannot be set back.
func Stamp(info os.FileInfo) string {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())
	}
	return fmt.Sprintf("%d %d %d.%09d %d", s.Size, s.Ino, s.Ctim.Sec, s.Ctim.Nsec, info.ModTime().UnixNano())
}

// Free is how much a user may still write to the file system of a directory.
func Free(dir string) (bytes int64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true //nolint:unconvert // Bsize has another type on other processors
}

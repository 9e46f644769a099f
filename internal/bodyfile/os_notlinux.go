//go:build !linux

package bodyfile

import (
	"fmt"
	"os"
)

// Stamp changes with what rewrites a file, unless its time of modification is set back.
func Stamp(info os.FileInfo) string {
	return fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())
}

// Free is not known; that a disk is full is found by writing.
func Free(string) (bytes int64, known bool) { return 0, false }

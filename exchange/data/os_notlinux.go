//go:build !linux

package data

import (
	"fmt"
	"os"
)

// stamp changes with what rewrites a file, unless its time of modification is set back.
func stamp(info os.FileInfo) string {
	return fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())
}

// freeBytes is not known; that a disk is full is found by writing.
func freeBytes(string) (bytes int64, known bool) { return 0, false }

package heap

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// resident is the memory that this process takes, bytes.
func resident() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		panic(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		panic(err)
	}
	return pages * int64(os.Getpagesize())
}

// The ballast is address space, not memory. The collection itself takes some.
func TestFloorTakesNoMemory(t *testing.T) {
	if got := child(t, 1); got.Resident > ballast/2 {
		t.Errorf("the process has grown by %d bytes, the ballast has %d", got.Resident, ballast)
	}
}

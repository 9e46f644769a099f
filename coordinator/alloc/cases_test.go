package alloc

import (
	"os"
	"strconv"
)

// times is how many random cases a test makes: FB_CASES times as many as it does by
// default, which is what the race detector gets through in a minute.
func times(n uint64) uint64 {
	if more, err := strconv.ParseUint(os.Getenv("FB_CASES"), 10, 16); err == nil && more > 0 {
		return n * more
	}
	return n
}

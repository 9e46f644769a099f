package monitor

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// mostCores is what the kernel's set has room for.
const mostCores = 1024

// affinity are the names of the cores that this process may use; nil where that is not known.
func affinity() map[string]bool {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil
	}
	may := make(map[string]bool)
	for i := range mostCores {
		if set.IsSet(i) {
			may["cpu"+strconv.Itoa(i)] = true
		}
	}
	return may
}

package heap

import (
	"os"
	"runtime"
	"sync"
)

// ballast is how much is allocated between two collections at least, bytes, and so how much
// more memory a program may take. More gains nothing in what we measured: 64 MB no more than
// 16, and 4 MB less.
const ballast = 16 << 20

// settings are the environment variables by which an operator tells the collector of Go
// what to do. Like it we take an empty one for none.
var settings = []string{"GOGC", "GOMEMLIMIT"}

var (
	once sync.Once
	held []byte // a package's variable: reachable for as long as the program runs
)

// Floor keeps the collector from running before 16 MB have been allocated since it ran
// last. Where the environment has GOGC or GOMEMLIMIT it does nothing: the operator has
// decided. Call it when a program begins: memory that is fresh from the system needs no
// clearing, so it stays untouched. Further calls do nothing; it may be called from many
// goroutines.
func Floor() {
	once.Do(func() {
		for _, name := range settings {
			if os.Getenv(name) != "" {
				return
			}
		}
		held = make([]byte, ballast)
		runtime.KeepAlive(held) // nobody else reads it: no compiler may leave it out for that
	})
}

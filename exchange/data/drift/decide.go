package drift

import (
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Record is a record of the bucket with what the bucket knows of it.
type Record struct {
	messages.Data
	Fence messages.Fence // creation time of the bucket and revision of the entry: the newer record wins
	Age   time.Duration  // since it was written, on the server's clock
}

// Held is what an environment noted of a body when it last verified it.
type Held struct {
	Name   string         `json:"name"`
	Fence  messages.Fence `json:"fence"` // of the record
	Rev    uint64         `json:"revision"`
	Digest string         `json:"sha256"`
	Size   int64          `json:"bytes"`
	Stamp  string         `json:"stamp"` // of the file, see Look
}

// Look is what a file system says of a file without reading it. Stamp changes with
// whatever rewrites it: size, time of change, inode. "" says that there is no file.
type Look struct {
	Stamp string
	Size  int64
}

// Step is what an environment is to do about a body.
type Step int

// The steps.
const (
	Leave  Step = iota // nothing: it is not told to hold or to remove it
	Hold               // it holds it, verified before: say so
	Verify             // a file is there that may be it: read it, then Hold or Fetch
	Fetch              // get it
	Remove             // it is not to hold it any more
)

func (s Step) String() string {
	return [...]string{"leave", "hold", "verify", "fetch", "remove"}[min(s, Remove)]
}

// Decide says what an environment is to do about a body. held is nil where nothing was ever
// verified; deep says that it is time to read what looks untouched: a disk may rot.
func Decide(r Record, e messages.Environment, held *Held, look Look, deep bool) Step {
	switch {
	case held != nil && r.Fence.Before(held.Fence):
		return Leave // read from a server that is behind: what was known is newer
	case r.Removed || !r.For.Has(e):
		if held == nil {
			return Leave // a file of that name that is not ours
		}
		return Remove
	case look.Stamp == "" || look.Size != r.Size:
		return Fetch
	case held != nil && held.Stamp == look.Stamp && !deep:
		if held.Digest == r.Digest {
			return Hold
		}
		return Fetch // it is the former revision, as verified
	}
	return Verify
}

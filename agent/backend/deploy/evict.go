package deploy

import (
	"slices"
	"strings"
	"time"
)

// entry is what is known of an artifact on the disk.
type entry struct {
	Digest string    `json:"sha256"`
	Size   int64     `json:"bytes"`
	Stamp  string    `json:"stamp"` // of the file when it was verified
	Used   time.Time `json:"used"`  // when a replica was last opened with it
}

// evict says which artifacts are to go for one of size bytes that is to come: those that
// nobody needs, the longest not used first, and no more than it takes to have most bytes at
// most, and, where it is known how many bytes the disk lacks for it, those. It reports false
// where that is not enough for the cache; that the disk is still too full is found by
// writing. It is pure.
func evict(held []entry, needed func(digest string) bool, size, most, lacking int64, known bool) (out []string, ok bool) {
	if size > most {
		return nil, false // and the sum below cannot overflow: files are there
	}
	have := size
	for _, e := range held {
		have += e.Size
	}
	list := slices.Clone(held)
	slices.SortFunc(list, func(a, b entry) int {
		if c := a.Used.Compare(b.Used); c != 0 {
			return c
		}
		return strings.Compare(a.Digest, b.Digest)
	})
	for _, e := range list {
		if have <= most && (!known || lacking <= 0) {
			break
		}
		if needed(e.Digest) {
			continue
		}
		out = append(out, e.Digest)
		have, lacking = have-e.Size, lacking-e.Size
	}
	return out, have <= most
}

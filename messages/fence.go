package messages

import (
	"cmp"
	"strconv"
	"strings"
)

// Fence is a number that only grows: who holds the larger one is right, and what
// carries a smaller one is refused. It is the revision of a key in a NATS KV
// bucket together with the bucket's creation time, because a bucket that was
// lost and made again counts its revisions from 1.
//
// The zero Fence is older than every other and means "none".
type Fence struct {
	Epoch    int64  `msgpack:"e" json:"epoch"`    // creation time of the bucket, Unix nanoseconds, the server's clock
	Revision uint64 `msgpack:"r" json:"revision"` // revision of the key in that bucket
}

// Term is the fencing token of the coordinator's lease.
type Term = Fence

// Incarnation is one life of an agent: the revision of its registration.
type Incarnation = Fence

// Compare returns −1, 0 or +1 as f is older than, equal to or newer than o.
func (f Fence) Compare(o Fence) int {
	return cmp.Or(cmp.Compare(f.Epoch, o.Epoch), cmp.Compare(f.Revision, o.Revision))
}

// Before reports whether f is older than o.
func (f Fence) Before(o Fence) bool { return f.Compare(o) < 0 }

// IsZero reports whether f is none.
func (f Fence) IsZero() bool { return f == Fence{} }

// String renders f as "epoch-revision" in decimal.
func (f Fence) String() string {
	b := strconv.AppendInt(make([]byte, 0, 40), f.Epoch, 10)
	return string(strconv.AppendUint(append(b, '-'), f.Revision, 10))
}

// ParseFence reads what [Fence.String] wrote, and nothing else: one fence has one text.
func ParseFence(s string) (Fence, error) {
	// The epoch may be negative, so the separator is looked for behind its first byte.
	if i := strings.IndexByte(s[min(1, len(s)):], '-') + 1; i > 0 {
		epoch, err1 := strconv.ParseInt(s[:i], 10, 64)
		revision, err2 := strconv.ParseUint(s[i+1:], 10, 64)
		if f := (Fence{epoch, revision}); err1 == nil && err2 == nil && f.String() == s {
			return f, nil
		}
	}
	return Fence{}, Errorf(CodeBadRequest, "fence: found %q, expected <epoch>-<revision>", shorten(s))
}

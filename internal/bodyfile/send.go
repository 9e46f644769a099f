package bodyfile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/fleetbus/fleetbus/messages/bus"
)

// ReadError is what reading the body that is sent failed with.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return fmt.Sprintf("read the body: %v", e.Err) }
func (e *ReadError) Unwrap() error { return e.Err }

// Send sends r, to its end, as the chunks of an upload, and returns what it was. It calls
// sent, unless that is nil, with the bytes so far. Whoever calls it finishes the upload, or
// drops it after an error.
func Send(ctx context.Context, u *bus.Upload, r io.Reader, sent func(bytes int64)) (digest []byte, size int64, err error) {
	// The client library copies what it is given into its own buffer before it returns,
	// but may look at it again while it waits for the acknowledgement: so each chunk on
	// its way has a buffer of its own, in turn.
	var ring [32][]byte
	sum := sha256.New()
	for i := 0; ; i++ {
		buf := ring[i%len(ring)]
		if buf == nil {
			buf = make([]byte, bus.Chunk)
			ring[i%len(ring)] = buf
		}
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			sum.Write(buf[:n])
			size += int64(n)
			if err := u.Write(ctx, buf[:n]); err != nil {
				return nil, size, err
			}
			if sent != nil {
				sent(size)
			}
		}
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return sum.Sum(nil), size, nil
		case err != nil:
			return nil, size, &ReadError{err}
		}
	}
}

// Digest reads r to its end, and returns its SHA-256 in hex and how long it is.
func Digest(r io.Reader) (digest string, size int64, err error) {
	sum := sha256.New()
	size, err = io.CopyBuffer(sum, onlyReader{r}, make([]byte, bus.Chunk))
	return hex.EncodeToString(sum.Sum(nil)), size, err
}

// onlyReader hides what would make io.Copy choose another buffer than the one it is given.
type onlyReader struct{ io.Reader }

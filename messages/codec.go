package messages

import (
	"bytes"

	"github.com/vmihailenco/msgpack/v5"
)

// Version is written into every control message. It grows only when an older
// reader would misunderstand a newer message; new optional keys do not count.
const Version = 1

// MaxControl bounds a control message, bytes. It is below the server's default
// max_payload (1 MiB, in which headers count), so a placement that could not be saved or
// sent is refused when made.
const MaxControl = 1<<20 - 8<<10

// Message is implemented by every control message.
type Message interface {
	// version returns the address of the message's version field.
	version() *int
	// check returns the first thing wrong with a decoded message.
	check() error
}

// Encode returns the message on the wire. It fills in m's version, so one message must
// not be encoded by two goroutines at once. It fails only for a message that is over
// [MaxControl].
func Encode(m Message) ([]byte, error) {
	*m.version() = Version
	var buf bytes.Buffer
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	enc.Reset(&buf)
	enc.SetSortMapKeys(true) // equal messages are equal bytes
	enc.UseCompactInts(true)
	if err := enc.Encode(m); err != nil {
		return nil, Errorf(CodeInternal, "encode %T: %v", m, err)
	}
	if buf.Len() > MaxControl {
		return nil, Errorf(CodePayloadTooLarge, "%T has %d bytes, allowed are %d", m, buf.Len(), MaxControl)
	}
	return buf.Bytes(), nil
}

// Decode reads a control message into m, which must be a zero value: what data does not
// name is left as it is. Whatever is wrong with data, the result is an error with code
// bad_request, never a panic, and the memory taken is bounded: see scan. Keys that m does
// not know are skipped. A version above [Version] is refused, because it says that this
// program would misunderstand the message.
func Decode(data []byte, m Message) (err error) {
	if len(data) > MaxControl {
		return Errorf(CodeBadRequest, "decode %T: %d bytes, allowed are %d", m, len(data), MaxControl)
	}
	// The decoder is a library's and the bytes are a stranger's.
	defer func() {
		if r := recover(); r != nil {
			err = Errorf(CodeBadRequest, "decode %T: %v", m, r)
		}
	}()
	if len(data) == 0 || !isMap(data[0]) {
		return Errorf(CodeBadRequest, "decode %T: not a msgpack map", m)
	}
	if err := scan(data, hasTime(m)); err != nil {
		return Errorf(CodeBadRequest, "decode %T: %s", m, AsError(err, CodeBadRequest).Message)
	}
	dec := msgpack.GetDecoder()
	defer msgpack.PutDecoder(dec)
	r := bytes.NewReader(data)
	dec.Reset(r)
	if err := dec.Decode(m); err != nil {
		return Errorf(CodeBadRequest, "decode %T: %v", m, err)
	}
	if v := *m.version(); v < 1 || v > Version {
		return Errorf(CodeBadRequest, "decode %T: version %d, this program reads 1 to %d; use programs of one release", m, v, Version)
	}
	if err := m.check(); err != nil {
		return Errorf(CodeBadRequest, "decode %T: %s", m, AsError(err, CodeBadRequest).Message)
	}
	return nil
}

// hasTime reports whether m has a field of type time.Time, on the wire a timestamp. Such
// a message must have no map, or the library could be made to reserve memory for one
// that scan did not see: a test holds every message to that.
func hasTime(m Message) bool {
	switch m.(type) {
	case *Event, *Job, *Explanation:
		return true
	}
	return false
}

// isMap reports whether a msgpack value that starts with c is a map. A nil would
// decode into any struct as "all fields absent".
func isMap(c byte) bool { return c&0xf0 == 0x80 || c == 0xde || c == 0xdf }

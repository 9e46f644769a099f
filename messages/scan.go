package messages

// Limits of a control message beside its size. The msgpack library reserves memory for
// as many elements as an array says that it has, and descends into a value that it skips
// by recursion: six bytes could ask for hundreds of gigabytes, a megabyte of nested
// arrays for half a gigabyte of stack, and neither can be recovered from.
const (
	// maxDepth is how deep containers may nest. Our own messages go five deep; the rest
	// is for keys that a newer program adds.
	maxDepth = 32
	// maxElements bounds the elements of all arrays of one message together. An element
	// of one byte becomes a struct of up to half a kilobyte: 64 Ki of them are 32 MB. The
	// most that a message of MaxControl needs is a third of it.
	maxElements = 1 << 16
)

// scan walks the one msgpack value in data without decoding it, and returns what is wrong
// with its form: cut short, a length beyond the end, too deep, too many elements, bytes
// after the end. times says whether timestamps (extension −1) may occur; no other
// extension may. The library would look for a map inside of an extension.
func scan(data []byte, times bool) error {
	var stack [maxDepth]int // values that are still to come in each open container
	depth, elements := 0, 0
	for rest := data; ; {
		it, ok := nextItem(rest)
		if !ok || it.size > len(rest) {
			return Errorf(CodeBadRequest, "cut short or malformed at byte %d", len(data)-len(rest))
		}
		if it.ext && (!times || int8(rest[it.size-it.payload-1]) != timestampExt) {
			return Errorf(CodeBadRequest, "an extension type at byte %d", len(data)-len(rest))
		}
		rest = rest[it.size:]
		if it.children > len(rest) { // every value has a byte at least
			return Errorf(CodeBadRequest, "a length of %d at byte %d, %d bytes before the end", it.children, len(data)-len(rest), len(rest))
		}
		if it.array {
			if elements += it.children; elements > maxElements {
				return Errorf(CodeBadRequest, "over %d array elements", maxElements)
			}
		}
		if it.children > 0 {
			if depth == maxDepth {
				return Errorf(CodeBadRequest, "nested deeper than %d", maxDepth)
			}
			stack[depth] = it.children
			depth++
			continue
		}
		for depth > 0 {
			if stack[depth-1]--; stack[depth-1] > 0 {
				break
			}
			depth--
		}
		if depth == 0 {
			if len(rest) > 0 {
				return Errorf(CodeBadRequest, "%d bytes after the end", len(rest))
			}
			return nil
		}
	}
}

// timestampExt is msgpack's own extension type for a time.
const timestampExt = -1

// item is the head of one msgpack value.
type item struct {
	size     int // bytes of the head and of what belongs to it, without children
	payload  int // of size: the bytes after the head
	children int // values that follow and belong to it
	array    bool
	ext      bool
}

// nextItem reads the head of the value that b begins with. ok is false where b ends
// within the head, or where no value begins with that byte.
func nextItem(b []byte) (it item, ok bool) {
	if len(b) == 0 {
		return item{}, false
	}
	plain := func(payload int) (item, bool) { return item{size: 1 + payload, payload: payload}, true }
	// sized reads a length of so many bytes; more is what stands between it and the payload.
	sized := func(width, more int) (item, bool) {
		n, ok := length(b, width)
		return item{size: 1 + width + more + n, payload: n, ext: more > 0}, ok
	}
	holder := func(width, each int) (item, bool) {
		n, ok := length(b, width)
		return item{size: 1 + width, children: n * each, array: each == 1}, ok
	}
	switch c := b[0]; {
	case c <= 0x7f || c >= 0xe0: // small integers
		return plain(0)
	case c <= 0x8f:
		return item{size: 1, children: 2 * int(c&0x0f)}, true
	case c <= 0x9f:
		return item{size: 1, children: int(c & 0x0f), array: true}, true
	case c <= 0xbf: // short strings
		return plain(int(c & 0x1f))
	case c == 0xc1:
		return item{}, false
	case c <= 0xc3: // nil, false, true
		return plain(0)
	case c <= 0xc6: // bin 8, 16, 32
		return sized(1<<(c-0xc4), 0)
	case c <= 0xc9: // ext 8, 16, 32
		return sized(1<<(c-0xc7), 1)
	case c <= 0xcb: // float 32, 64
		return plain(4 << (c - 0xca))
	case c <= 0xcf: // uint 8 to 64
		return plain(1 << (c - 0xcc))
	case c <= 0xd3: // int 8 to 64
		return plain(1 << (c - 0xd0))
	case c <= 0xd8: // fixext 1 to 16
		n := 1 << (c - 0xd4)
		return item{size: 2 + n, payload: n, ext: true}, true
	case c <= 0xdb: // str 8, 16, 32
		return sized(1<<(c-0xd9), 0)
	case c <= 0xdd: // array 16, 32
		return holder(2<<(c-0xdc), 1)
	default: // map 16, 32
		return holder(2<<(c-0xde), 2)
	}
}

// length reads the big-endian length of width bytes that follows the first byte of b.
// One that is over MaxControl is cut to just above it, and so refused whatever the size
// of an int.
func length(b []byte, width int) (int, bool) {
	if len(b) < 1+width {
		return 0, false
	}
	n := uint64(0)
	for _, c := range b[1 : 1+width] {
		n = n<<8 | uint64(c)
	}
	return int(min(n, MaxControl+1)), true
}

package policy

import (
	"encoding/binary"
	"math"
)

// Sizes of observations, bytes.
const (
	Droid = 301_436 // two cameras of 224 × 224 and a state
	Aloha = 602_540 // four cameras
)

// frame writes msgpack as the stock client does: short strings as str, bytes as bin, and
// an array as a map with keys of type bin.
type frame []byte

func (f *frame) fields(n int) { *f = append(*f, 0x80|byte(n)) }

func (f *frame) str(s string) {
	switch n := len(s); {
	case n < 32:
		*f = append(*f, 0xa0|byte(n))
	case n < 256:
		*f = append(*f, 0xd9, byte(n))
	default:
		*f = binary.BigEndian.AppendUint16(append(*f, 0xda), uint16(n))
	}
	*f = append(*f, s...)
}

func (f *frame) bin(b []byte) {
	switch n := len(b); {
	case n < 256:
		*f = append(*f, 0xc4, byte(n))
	case n < 65536:
		*f = binary.BigEndian.AppendUint16(append(*f, 0xc5), uint16(n))
	default:
		*f = binary.BigEndian.AppendUint32(append(*f, 0xc6), uint32(n))
	}
	*f = append(*f, b...)
}

func (f *frame) float(v float64) {
	*f = binary.BigEndian.AppendUint64(append(*f, 0xcb), math.Float64bits(v))
}

func (f *frame) array(dtype string, shape []int, data []byte) {
	f.fields(4)
	f.bin([]byte("__ndarray__"))
	*f = append(*f, 0xc3) // true
	f.bin([]byte("data"))
	f.bin(data)
	f.bin([]byte("dtype"))
	f.str(dtype)
	f.bin([]byte("shape"))
	*f = append(*f, 0x90|byte(len(shape)))
	for _, n := range shape {
		if n < 128 {
			*f = append(*f, byte(n))
		} else {
			*f = append(*f, 0xcc, byte(n))
		}
	}
}

func doubles(n int) []byte {
	var b []byte
	for i := range n {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(i)/8))
	}
	return b
}

// Observation is one of the DROID kind, with cameras of side × side pixels, and with an id
// in the first bytes of its first picture; IDOf finds it. For side 224 it has Droid bytes.
func Observation(side int, id uint64) []byte {
	picture := make([]byte, side*side*3)
	for i := range picture {
		picture[i] = byte(i * 7)
	}
	first := append([]byte(nil), picture...)
	binary.BigEndian.PutUint64(first, id)
	var f frame
	f.fields(5)
	f.str("observation/exterior_image_1_left")
	f.array("|u1", []int{side, side, 3}, first)
	f.str("observation/wrist_image_left")
	f.array("|u1", []int{side, side, 3}, picture)
	f.str("observation/joint_position")
	f.array("<f8", []int{7}, doubles(7))
	f.str("observation/gripper_position")
	f.array("<f8", []int{1}, doubles(1))
	f.str("prompt")
	f.str("x") // so short that the whole has the size of a real one
	return f
}

// Answer is a chunk of actions, ten for eight joints twice over, with the id of its
// observation as the time that the server took.
func Answer(id uint64) []byte {
	var f frame
	f.fields(2)
	f.str("actions")
	f.array("<f8", []int{20, 16}, doubles(320))
	f.str("server_timing")
	f.fields(1)
	f.str("infer_ms")
	f.float(float64(id))
	return f
}

// Metadata is what the stand-in says of itself.
func Metadata() []byte {
	var f frame
	f.fields(2)
	f.str("policy")
	f.str("stand-in")
	f.str("reset_pose")
	f.array("<f8", []int{7}, doubles(7))
	return f
}

// IDOf returns the id of an observation with cameras of side × side pixels.
func IDOf(observation []byte) uint64 {
	const before = 1 + 2 + 33 + 1 + 2 + 11 + 1 + 2 + 4 + 5 // up to the first picture's bytes
	if len(observation) < before+8 {
		return 0
	}
	at := before
	switch observation[before-5] { // a small picture has a shorter length
	case 0xc6:
	default:
		at = smallPicture(observation)
	}
	return binary.BigEndian.Uint64(observation[at:])
}

// smallPicture finds the bytes of a first picture of less than 64 kB.
func smallPicture(observation []byte) int {
	const length = 1 + 2 + 33 + 1 + 2 + 11 + 1 + 2 + 4
	if observation[length] == 0xc5 {
		return length + 3
	}
	return length + 2
}

// AnswerTo returns the id that an answer is to.
func AnswerTo(answer []byte) uint64 {
	if len(answer) < 8 {
		return 0
	}
	return uint64(math.Float64frombits(binary.BigEndian.Uint64(answer[len(answer)-8:])))
}

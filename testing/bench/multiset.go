package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // multi.csv
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/fleetbus/fleetbus/coordinator/alloc/assign"
)

// multiCSV is the own set: what was found of each instance so far, and no plans. It is
// written by `multi --update` alone.
//
//go:embed multi.csv
var multiCSV []byte

// multiHeader are the columns of the set's file.
var multiHeader = []string{"instance", "checksum", "best", "bound"}

// multiName is what generates an instance, and in writing its name.
type multiName struct {
	class       string
	bins, items int
	seed        uint64
}

func (n multiName) String() string {
	return fmt.Sprintf("%s%d-%d-%d", n.class, n.bins, n.items, n.seed)
}

func (n multiName) generate() (*assign.Instance, error) {
	return generate(n.class, n.bins, n.items, n.seed)
}

func parseMultiName(text string) (n multiName, err error) {
	if text != "" {
		n.class = text[:1]
		_, err = fmt.Sscanf(text[1:], "%d-%d-%d", &n.bins, &n.items, &n.seed)
	}
	// Written again it has to be the same: that rules out signs, zeros before it and a rest.
	if err != nil || n.String() != text || n.bins < 1 || n.items < 1 || !slices.Contains(multiClasses, n.class) {
		return multiName{}, fmt.Errorf("instance is %q; allowed is type, bins-items-seed, such as c5-100-1", text)
	}
	return n, nil
}

// order is that of the set: by type, items, bins and seed.
func (n multiName) order(o multiName) int {
	return cmp.Or(cmp.Compare(n.class, o.class), cmp.Compare(n.items, o.items), cmp.Compare(n.bins, o.bins), cmp.Compare(n.seed, o.seed))
}

// known is what is known of an instance: its checksum, the cost of the best plan that was
// ever found, and the highest bound. The optimum lies between them.
type known struct {
	checksum    string
	best, bound float64
}

// multiSet are the known instances.
type multiSet map[multiName]known

// checksum is of every number of p: a generator that has changed gives another.
func checksum(p *assign.Instance) string {
	var b []byte
	put := func(list ...float64) {
		for _, v := range list {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		}
	}
	put(float64(len(p.Capacity)), float64(len(p.Open)), float64(len(p.Items)))
	for _, c := range p.Capacity {
		put(c[:]...)
	}
	put(p.Open...)
	for _, it := range p.Items {
		put(float64(len(it.Options)), float64(it.Apart), it.Wait)
		for _, o := range it.Options {
			put(float64(o.Bin), o.Cost)
			put(o.Need[:]...)
		}
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// readMultiSet reads what write wrote. Errors name the line.
func readMultiSet(r io.Reader) (multiSet, error) {
	in := csv.NewReader(r)
	in.FieldsPerRecord = len(multiHeader)
	header, err := in.Read()
	if err == io.EOF || err == nil && !slices.Equal(header, multiHeader) {
		return nil, fmt.Errorf("line 1: the header has to be %v, and is %v", multiHeader, header)
	}
	if err != nil {
		return nil, err
	}
	set := make(multiSet)
	for {
		row, err := in.Read()
		if err == io.EOF {
			return set, nil
		}
		if err != nil {
			return nil, err
		}
		if err := set.add(row); err != nil {
			line, _ := in.FieldPos(0)
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
	}
}

func (set multiSet) add(row []string) error {
	n, err := parseMultiName(row[0])
	if err != nil {
		return err
	}
	if _, ok := set[n]; ok {
		return fmt.Errorf("instance %s stands here a second time", n)
	}
	k := known{checksum: row[1]}
	if raw, err := hex.DecodeString(k.checksum); err != nil || len(raw) != 8 {
		return fmt.Errorf("checksum of %s is %q; allowed are 16 hexadecimal digits", n, k.checksum)
	}
	for i, v := range []*float64{&k.best, &k.bound} {
		if *v, err = strconv.ParseFloat(row[2+i], 64); err != nil || !(*v > 0) || math.IsInf(*v, 1) {
			return fmt.Errorf("%s of %s is %q; allowed is a number over 0", multiHeader[2+i], n, row[2+i])
		}
	}
	if k.bound > k.best {
		return fmt.Errorf("bound %v of %s is over its best cost %v: one of them is wrong", k.bound, n, k.best)
	}
	set[n] = k
	return nil
}

func (set multiSet) write(w io.Writer) error {
	out := csv.NewWriter(w)
	rows := [][]string{multiHeader}
	for _, n := range slices.SortedFunc(maps.Keys(set), multiName.order) {
		k := set[n]
		rows = append(rows, []string{n.String(), k.checksum, strconv.FormatFloat(k.best, 'f', -1, 64), strconv.FormatFloat(k.bound, 'f', -1, 64)})
	}
	return out.WriteAll(rows)
}

// loadMultiSet reads the set in the file path; the set is empty where there is no file.
func loadMultiSet(path string) (multiSet, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return make(multiSet), nil
	}
	if err != nil {
		return nil, err
	}
	set, err := readMultiSet(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return set, nil
}

// save replaces the file path as a whole, so that one that is interrupted leaves the old.
func (set multiSet) save(path string) error {
	var text bytes.Buffer
	if err := set.write(&text); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(f.Name()) // nothing is there any more once it was renamed
	_, err = f.Write(text.Bytes())
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

package messages

import (
	"encoding/hex"
	"slices"
)

// MaxData is how many named data a fleet may have, removed ones counted: an agent reads
// the records of all of them with one question, to which a server gives 1,024 answers.
const MaxData = 1000

// Audience says which environments are to hold something: those that meet every condition
// that is given. The zero value is everybody.
type Audience struct {
	Tiers  []Tier            `msgpack:"t,omitempty" json:"tiers,omitempty"`  // any of them
	Sites  []string          `msgpack:"s,omitempty" json:"sites,omitempty"`  // any of them
	Labels map[string]string `msgpack:"l,omitempty" json:"labels,omitempty"` // all of them
	Agents []string          `msgpack:"a,omitempty" json:"agents,omitempty"` // any of them
}

// Has reports whether an environment belongs to the audience.
func (a Audience) Has(e Environment) bool {
	e = e.Normal()
	if len(a.Tiers) > 0 && !slices.Contains(a.Tiers, e.Tier) ||
		len(a.Sites) > 0 && !slices.Contains(a.Sites, e.Site) ||
		len(a.Agents) > 0 && !slices.Contains(a.Agents, e.ID) {
		return false
	}
	for k, v := range a.Labels {
		if found, ok := e.Labels[k]; !ok || found != v {
			return false
		}
	}
	return true
}

// Check returns the first thing wrong with a.
func (a Audience) Check() error {
	for _, t := range a.Tiers {
		if err := t.Check("tier"); err != nil {
			return err
		}
	}
	for _, list := range []struct {
		what  string
		names []string
	}{{"site", a.Sites}, {"agent", a.Agents}} {
		for _, n := range list.names {
			if err := CheckName(list.what, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// Data is the record of a named body that environments hold, in the data bucket. It is
// written with compare-and-set only, after the body is stored whole.
type Data struct {
	V       int      `msgpack:"v" json:"-"`
	Name    string   `msgpack:"n" json:"name"`
	Rev     uint64   `msgpack:"r" json:"revision"`                   // 1, 2, …; every write counts
	Digest  string   `msgpack:"d,omitempty" json:"sha256,omitempty"` // of the body: SHA-256 in hex
	Size    int64    `msgpack:"z,omitempty" json:"bytes"`
	Object  string   `msgpack:"o,omitempty" json:"object,omitempty"` // last token of the subject of its chunks
	First   uint64   `msgpack:"q,omitempty" json:"-"`                // sequence of the first chunk in their stream
	For     Audience `msgpack:"f" json:"for"`
	Type    string   `msgpack:"ct,omitempty" json:"content_type,omitempty"`
	By      string   `msgpack:"b,omitempty" json:"by,omitempty"`      // who wrote it, for people
	Removed bool     `msgpack:"x,omitempty" json:"removed,omitempty"` // nobody is to hold it any more
}

func (d *Data) version() *int { return &d.V }

func (d *Data) check() error {
	if err := CheckName("data", d.Name); err != nil {
		return err
	}
	if err := d.For.Check(); err != nil {
		return err
	}
	switch {
	case d.Rev == 0:
		return Errorf(CodeBadRequest, "data %q: revision 0, they count from 1", d.Name)
	case d.Size < 0:
		return Errorf(CodeBadRequest, "data %q: %d bytes", d.Name, d.Size)
	case d.Removed:
		return nil
	}
	if sum, err := hex.DecodeString(d.Digest); err != nil || len(sum) != 32 {
		return Errorf(CodeBadRequest, "data %q: digest %q is no SHA-256 in hex", d.Name, shorten(d.Digest))
	}
	if d.Size > 0 || d.Object != "" {
		return CheckName("object", d.Object)
	}
	return nil
}

// DataState is how an environment stands towards a named body.
type DataState string

// The states of a body in an environment.
const (
	DataSynced   DataState = "synced"   // it holds what the record says, verified
	DataFetching DataState = "fetching" // it is getting it
	DataFailed   DataState = "failed"   // it cannot; the reason says why, and it tries on
)

// DataAck is what an environment says that it holds of a named body, in the acks bucket.
// An entry outlives the agent: it says what was on its disk when it was last heard of.
type DataAck struct {
	V      int       `msgpack:"v" json:"-"`
	Name   string    `msgpack:"n" json:"name"`
	Agent  string    `msgpack:"a" json:"agent"`
	State  DataState `msgpack:"s" json:"state"`
	Held   uint64    `msgpack:"h,omitempty" json:"held"`             // revision that it holds, verified; 0: none
	Digest string    `msgpack:"d,omitempty" json:"sha256,omitempty"` // of what it holds
	Want   uint64    `msgpack:"w,omitempty" json:"wanted"`           // revision that it is to hold, as far as it knows
	Have   int64     `msgpack:"b,omitempty" json:"bytes"`            // bytes of that revision that it has
	Reason string    `msgpack:"e,omitempty" json:"reason,omitempty"` // why it failed
}

func (d *DataAck) version() *int { return &d.V }

func (d *DataAck) check() error {
	if err := CheckName("data", d.Name); err != nil {
		return err
	}
	if d.Have < 0 {
		return Errorf(CodeBadRequest, "data %q: %d bytes are there", d.Name, d.Have)
	}
	return CheckName("agent", d.Agent)
}

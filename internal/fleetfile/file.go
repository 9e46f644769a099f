package fleetfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fleetbus/fleetbus/coordinator/alloc"
	"github.com/fleetbus/fleetbus/messages"
	"go.yaml.in/yaml/v3"
)

// File is a fleet file that has been read and checked.
type File struct {
	Name         string // as given to Load or Parse
	Fleet        string // name of the fleet; "" where the file does not say
	Settings     *messages.Settings
	Environments []messages.Environment // count expanded; Offline: nothing is known of their handlers
	Tasks        []messages.Task
	Measured     map[alloc.Pair]float64        // delays, ms, for planning in mode adaptive; nil for none
	Foreign      map[string]messages.Resources // what others use of environments, by id; of a live fleet, files have none
	Baselines    []Baseline
}

// Baseline is something to compare the plan with: everything on one tier.
type Baseline struct {
	Name    string
	Tier    messages.Tier
	OnePer  messages.Per     // robot: one whole environment for each robot of the fleet; "": those that there are
	Billing messages.Billing // with OnePer: how those are billed; "": as the environment is
}

// maxFile bounds a file, bytes; maxEnvironments what it may expand to. Both are far
// above any fleet that one coordinator plans.
const (
	maxFile         = 16 << 20
	maxEnvironments = 100_000
)

// Load reads and checks the file at path. The error is [Errors] for what the file says,
// a [*messages.Error] with code not_found or bad_request where it cannot be read.
func Load(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		code := messages.CodeBadRequest
		if errors.Is(err, os.ErrNotExist) {
			code = messages.CodeNotFound
		}
		return nil, messages.Errorf(code, "fleet file: %v", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, messages.Errorf(messages.CodeBadRequest, "fleet file: %v", err)
	}
	return Parse(path, data)
}

// Parse reads and checks a fleet file; name stands in its errors. Whatever data holds,
// the result is a file that passes every check of package messages, or [Errors].
func Parse(name string, data []byte) (_ *File, err error) {
	d := &decoder{name: name}
	// The parser is a library's and the bytes may be anything.
	defer func() {
		if r := recover(); r != nil {
			err = Errors{{File: name, Text: fmt.Sprintf("it is not YAML that can be read: %v", r)}}
		}
	}()
	root, ok := d.document(data)
	if !ok {
		return nil, d.errs
	}
	f := &File{Name: name}
	d.file(root, f)
	if len(d.errs) > 0 {
		return nil, d.errs.sorted()
	}
	return f, nil
}

// Planning are the file's settings, or the defaults where it has none.
func (f *File) Planning() messages.Settings {
	if f.Settings != nil {
		return *f.Settings
	}
	return messages.DefaultSettings()
}

// Problem is the allocation that the file describes.
func (f *File) Problem() alloc.Problem {
	p := alloc.Problem{Settings: f.Planning(), Replicas: alloc.Expand(f.Tasks, f.Environments), Measured: f.Measured}
	for _, e := range f.Environments {
		p.Environments = append(p.Environments, alloc.Environment{Environment: e, Foreign: f.Foreign[e.ID]})
	}
	return p
}

// document returns the root mapping of the only YAML document in data.
func (d *decoder) document(data []byte) (*yaml.Node, bool) {
	if len(data) > maxFile {
		d.errs = append(d.errs, Error{File: d.name, Text: fmt.Sprintf("it has more than %d bytes; a fleet file is smaller", maxFile)})
		return nil, false
	}
	const allowed = "allowed are fleet, settings, environments, tasks, measured, baselines"
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF) || err == nil && (len(doc.Content) == 0 || doc.Content[0].Tag == "!!null"):
		d.errs = append(d.errs, Error{File: d.name, Text: "it is empty; " + allowed})
		return nil, false
	case err != nil:
		d.errs = append(d.errs, NotYAML(d.name, data, err))
		return nil, false
	}
	switch err := dec.Decode(&more); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.errs = append(d.errs, NotYAML(d.name, data, err))
		return nil, false
	default:
		d.fail(&more, "", "found a second document; a fleet file is one")
		return nil, false
	}
	return doc.Content[0], true
}

package coordinator

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
)

// Change is what Apply would do to one task, or to the settings.
type Change struct {
	Task   string        `json:"task,omitempty"` // "": it is the settings'
	Change ChangeKind    `json:"change"`
	Fields []FieldChange `json:"fields,omitempty"` // of what is updated; sorted by name
}

// ChangeKind is one of the words below.
type ChangeKind string

// What becomes of an entry.
const (
	Created   ChangeKind = "created"
	Updated   ChangeKind = "updated"
	Unchanged ChangeKind = "unchanged"
)

// FieldChange is one field, by the name that it has in JSON, with its unit where it has
// one. What is absent on one side is nil there.
type FieldChange struct {
	Field string `json:"field"`
	From  any    `json:"from"`
	To    any    `json:"to"`
}

// Diff says what Apply would change, without asking anybody: the settings first, where they
// are given, then the tasks in the order of their names. The lists are those of Apply, and
// so are the errors.
func Diff(have Desired, tasks []messages.Task, settings *messages.Settings) ([]Change, error) {
	if err := checkApply(tasks, settings); err != nil {
		return nil, err
	}
	out := []Change{}
	if settings != nil {
		// Settings that are the default are stored too, and the same when they are not.
		c, err := compare("", &have.Settings, settings)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	old := make(map[string]messages.Task, len(have.Tasks))
	for _, t := range have.Tasks {
		old[t.Name] = t
	}
	sorted := slices.SortedFunc(slices.Values(tasks), func(a, b messages.Task) int { return strings.Compare(a.Name, b.Name) })
	for _, t := range sorted {
		was, ok := old[t.Name]
		if !ok {
			out = append(out, Change{Task: t.Name, Change: Created})
			continue
		}
		was.Revision, t.Revision = 0, 0
		c, err := compare(t.Name, &messages.TaskEntry{Task: was}, &messages.TaskEntry{Task: t})
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// compare tells two entries apart as Apply does, by their bytes, and says in which fields.
func compare(task string, from, to messages.Message) (Change, error) {
	a, err := messages.Encode(from)
	if err != nil {
		return Change{}, err
	}
	b, err := messages.Encode(to)
	if err != nil {
		return Change{}, err
	}
	if bytes.Equal(a, b) {
		return Change{Task: task, Change: Unchanged}, nil
	}
	fields, err := fieldChanges(from, to)
	return Change{Task: task, Change: Updated, Fields: fields}, err
}

func fieldChanges(from, to messages.Message) ([]FieldChange, error) {
	a, err := fieldsOf(from)
	if err != nil {
		return nil, err
	}
	b, err := fieldsOf(to)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(a)
	maps.Copy(all, b)
	var out []FieldChange
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if before, after := a[name], b[name]; !same(before, after) {
			out = append(out, FieldChange{Field: name, From: before, To: after})
		}
	}
	return out, nil
}

// fieldsOf flattens a message as JSON has it: demand.compute, labels.gpu.
func fieldsOf(m messages.Message) (map[string]any, error) {
	var v any = m
	if t, ok := m.(*messages.TaskEntry); ok {
		v = t.Task
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, messages.Errorf(messages.CodeInternal, "compare %T: %v", m, err)
	}
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		return nil, messages.Errorf(messages.CodeInternal, "compare %T: %v", m, err)
	}
	out := make(map[string]any)
	flatten("", tree, out)
	return out, nil
}

func flatten(prefix string, tree map[string]any, into map[string]any) {
	for name, v := range tree {
		if branch, ok := v.(map[string]any); ok {
			flatten(prefix+name+".", branch, into)
			continue
		}
		into[prefix+name] = v
	}
}

// same compares what JSON is made of.
func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

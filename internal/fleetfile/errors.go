package fleetfile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fleetbus/fleetbus/messages"
)

// Error is one thing wrong with a file.
type Error struct {
	File  string
	Line  int    // from 1; 0 where the whole file is meant
	Field string // path of the field, like tasks[2].limit; "" for the whole file
	Text  string // what was found, what is allowed
}

func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Field != "" {
		b.WriteString(": " + e.Field)
	}
	return b.String() + ": " + e.Text
}

// Errors are all errors of a file, by line. [messages.CodeOf] says bad_request of it.
type Errors []Error

// Error gives one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, x := range e {
		lines[i] = x.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives each as a [*messages.Error] with code bad_request.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, x := range e {
		out[i] = &messages.Error{Code: messages.CodeBadRequest, Message: x.Error()}
	}
	return out
}

func (e Errors) sorted() Errors {
	slices.SortStableFunc(e, func(a, b Error) int { return cmp.Compare(a.Line, b.Line) })
	return e
}

// nearest returns the allowed word that was probably meant, "" if none is near.
func nearest(found string, allowed []string) string {
	best, low := "", 1+max(1, len(found)/3)
	for _, a := range allowed {
		if d := distance(strings.ToLower(found), strings.ToLower(a)); d < low {
			best, low = a, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete or change.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// shorten keeps a long value from flooding the screen.
func shorten(s string) string {
	if r := []rune(s); len(r) > 40 {
		s = string(r[:40]) + "…"
	}
	return s
}

package fleetfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// NotYAML turns the parser's refusal of data, "yaml: line 3: why", into an error of ours
// that names the line at which data stops being YAML; 0 where the parser names none, as
// for bytes that are no text.
func NotYAML(file string, data []byte, err error) Error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if n, _ := fmt.Sscanf(text, "line %d:", &line); n == 1 {
		_, text, _ = strings.Cut(text, ": ")
		line = brokenLine(data, err)
	}
	return Error{File: file, Line: line, Text: "it is not YAML: " + text}
}

// brokenLine is the number of the line that makes the parser say err. The parser itself
// names the line where the broken block begins, which may be the first of the file. It
// reads forwards and stops at the fault, so it says the same of everything that goes
// beyond that line, and something else, or nothing, of what ends before it.
func brokenLine(data []byte, err error) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	if len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	ends := make([]int, len(lines)) // of each line, as an offset
	for at, i := 0, 0; i < len(lines); i++ {
		at += len(lines[i])
		ends[i] = at
	}
	return 1 + sort.Search(len(lines)-1, func(i int) bool {
		said := refusal(data[:ends[i]])
		return said != nil && said.Error() == err.Error()
	})
}

// refusal is what the parser says of data, read to its end; nil where it is YAML.
func refusal(data []byte) (err error) {
	// The parser is a library's; a panic of it is not the refusal that is looked for.
	defer func() {
		if recover() != nil {
			err = nil
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		switch err := dec.Decode(new(yaml.Node)); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	_ "embed" // the trace
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// arrival is one request of a trace.
type arrival struct {
	at        time.Duration // since the first one
	context   float64       // tokens
	generated float64       // tokens
}

//go:embed trace/azure-llm-conv-2023.csv.gz
var builtIn []byte

// mostArrivals and longestTrace bound a trace: every robot plays all of it.
const (
	mostArrivals = 200_000
	longestTrace = 24 * time.Hour
)

// readTrace reads a trace: the one that is built in where path is "", else a file in that
// form or in the one in which Azure publishes it, compressed or not.
func readTrace(path string) ([]arrival, error) {
	name, data := "the built-in trace", builtIn
	if path != "" {
		var err error
		if data, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("--trace: %w", err)
		}
		name = path
	}
	var r io.Reader = bytes.NewReader(data)
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("--trace: %s: %w", name, err)
		}
		r = z
	}
	list, err := parseTrace(r)
	if err != nil {
		return nil, fmt.Errorf("--trace: %s: %w", name, err)
	}
	return list, nil
}

// The two forms by their first lines.
const (
	ownHeader   = "gap_ms,context_tokens,generated_tokens"
	azureHeader = "TIMESTAMP,ContextTokens,GeneratedTokens"
	azureTime   = "2006-01-02 15:04:05.9999999"
)

func parseTrace(r io.Reader) (list []arrival, err error) {
	lines := bufio.NewScanner(r)
	header := ""
	var first time.Time
	var at time.Duration
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if n == 1 {
			if header = strings.TrimPrefix(line, "\ufeff"); header != ownHeader && header != azureHeader {
				return nil, fmt.Errorf("line 1: found %.60q, allowed are %q (Azure's form) and %q", line, azureHeader, ownHeader)
			}
			continue
		}
		if line == "" {
			continue
		}
		fields := strings.Split(line, ",")
		if len(fields) != 3 {
			return nil, fmt.Errorf("line %d: found %d fields, expected 3: %s", n, len(fields), header)
		}
		if header == ownHeader {
			gap, err := amount(fields[0], 1e9)
			if err != nil {
				return nil, fmt.Errorf("line %d: gap_ms: %w", n, err)
			}
			if len(list) > 0 {
				at += time.Duration(gap * float64(time.Millisecond))
			}
		} else {
			t, err := time.Parse(azureTime, fields[0])
			switch {
			case err != nil:
				return nil, fmt.Errorf("line %d: TIMESTAMP: found %.40q, expected a time like 2023-11-16 18:15:46.6805900", n, fields[0])
			case len(list) == 0:
				first = t
			case t.Sub(first).Round(time.Millisecond) < at:
				return nil, fmt.Errorf("line %d: TIMESTAMP: %s is before the line before it; sort the trace by time", n, fields[0])
			}
			at = t.Sub(first).Round(time.Millisecond)
		}
		if at > longestTrace {
			return nil, fmt.Errorf("line %d: %v after the first request; a trace may last %v, cut it", n, at, longestTrace)
		}
		a := arrival{at: at}
		if a.context, err = amount(fields[1], 1e7); err != nil {
			return nil, fmt.Errorf("line %d: context tokens: %w", n, err)
		}
		if a.generated, err = amount(fields[2], 1e7); err != nil {
			return nil, fmt.Errorf("line %d: generated tokens: %w", n, err)
		}
		if list = append(list, a); len(list) > mostArrivals {
			return nil, fmt.Errorf("line %d: more than %d requests; cut the trace", n, mostArrivals)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(list) < 2 || list[len(list)-1].at < time.Second {
		return nil, fmt.Errorf("found %d requests, and a trace is at least two over a second", len(list))
	}
	return list, nil
}

// amount reads a whole number from 0 to most.
func amount(s string, most float64) (float64, error) {
	v, err := strconv.ParseUint(s, 10, 63)
	if err != nil || float64(v) > most {
		return 0, fmt.Errorf("found %.40q, allowed is a whole number from 0 to %.0f", s, most)
	}
	return float64(v), nil
}

package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The sums are those of the original file, so that nothing was lost on the way.
func TestBuiltInTrace(t *testing.T) {
	list, err := readTrace("")
	if err != nil {
		t.Fatal(err)
	}
	var contexts, generated float64
	for _, a := range list {
		contexts += a.context
		generated += a.generated
	}
	if len(list) != 19366 || contexts != 22361870 || generated != 4088665 || list[len(list)-1].at != 3501722*time.Millisecond {
		t.Errorf("%d requests, %.0f and %.0f tokens, the last at %v", len(list), contexts, generated, list[len(list)-1].at)
	}
}

func TestAzuresForm(t *testing.T) {
	text := "\ufeffTIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n"
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"a.csv": []byte(text), "a.csv.gz": packed.Bytes()} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := readTrace(path)
		if err != nil || len(list) != 2 || list[1] != (arrival{4315 * time.Millisecond, 396, 109}) {
			t.Errorf("%s: %+v, %v", name, list, err)
		}
	}
}

func TestBadTraces(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "found 0 requests",
		"a,b,c\n1,2,3\n":                      `line 1: found "a,b,c"`,
		ownHeader + "\n1,2\n":                 "line 2: found 2 fields, expected 3",
		ownHeader + "\n0,1,1\n-5,1,1\n":       "line 3: gap_ms: found \"-5\"",
		ownHeader + "\n0,1,1\n5,x,1\n":        "line 3: context tokens: found \"x\"",
		ownHeader + "\n0,1,1\n5,1,99999999\n": "line 3: generated tokens: found \"99999999\"",
		ownHeader + "\n0,1,1\n5,1,1\n":        "at least two over a second",
		azureHeader + "\nyesterday,1,1\n":     "line 2: TIMESTAMP: found \"yesterday\"",
		azureHeader + "\n2023-11-16 18:15:46.6,1,1\n2023-11-16 18:15:45.6,1,1\n": "sort the trace by time",
	} {
		if _, err := parseTrace(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	if _, err := readTrace(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "--trace") {
		t.Error(err)
	}
}

func FuzzTrace(f *testing.F) {
	f.Add([]byte(ownHeader + "\n0,1,1\n5000,1,1\n"))
	f.Add([]byte(azureHeader + "\n2023-11-16 18:15:46.6,1,1\n2023-11-16 18:15:48.6,1,1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := parseTrace(bytes.NewReader(data))
		if err != nil {
			return
		}
		for i, a := range list {
			if a.context < 0 || a.generated < 0 || a.at < 0 || i > 0 && a.at < list[i-1].at {
				t.Fatalf("request %d: %+v", i, a)
			}
		}
	})
}

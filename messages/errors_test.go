package messages

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// codeLines renders codes as the goldens keep them.
func codeLines(codes []Code) []byte {
	var b bytes.Buffer
	for _, c := range codes {
		fmt.Fprintf(&b, "%s: %s\n", c, c.Advice())
	}
	return b.Bytes()
}

// The list of codes only grows. Each addition is a golden of its own, codes-1, codes-2, …,
// because a golden is never edited; together they are the list.
func TestCodesAreOnlyAdded(t *testing.T) {
	golden(t, "codes-1", codeLines(Codes()))
	golden(t, "codes-2", codeLines([]Code{CodeStopped}))
	var kept []byte
	for i := 1; ; i++ {
		name := fmt.Sprintf("codes-%d", i)
		if files, err := filepath.Glob(filepath.Join("testdata", name+".golden")); err != nil || len(files) == 0 {
			break
		}
		kept = append(kept, golden(t, name, nil)...)
	}
	now := codeLines(Codes())
	if !bytes.HasPrefix(now, kept) {
		t.Fatalf("a code or its advice was changed, moved or taken away\n got %s\nkept %s", now, kept)
	}
	if len(now) > len(kept) {
		t.Fatalf("these codes are new; keep them in the next codes-N.golden:\n%s", now[len(kept):])
	}
}

func TestCodes(t *testing.T) {
	seen := map[Code]bool{}
	for _, c := range Codes() {
		if seen[c] || !c.Known() || CheckName("code", string(c)) != nil {
			t.Errorf("code %q is twice in the list, unknown, or no name", c)
		}
		seen[c] = true
	}
	for _, c := range []Code{"", "no_such_code", "BUSY"} {
		if c.Known() || c.Advice() != Stop {
			t.Errorf("%q: known %v, advice %s", c, c.Known(), c.Advice())
		}
	}
	if got := Advice(200).String(); got != "retry elsewhere" {
		t.Errorf("an advice that does not exist prints %q", got)
	}
}

func TestError(t *testing.T) {
	ours := Errorf(CodeBusy, "all %d slots are taken", 3)
	err := error(ours)
	wrapped := fmt.Errorf("asking edge-1: %w", err)
	if err.Error() != "busy: all 3 slots are taken" {
		t.Error(err)
	}
	for _, e := range []error{err, wrapped} {
		if CodeOf(e) != CodeBusy || !errors.Is(e, &Error{Code: CodeBusy}) || errors.Is(e, &Error{Code: CodeStale}) {
			t.Errorf("%v: code %q", e, CodeOf(e))
		}
		if AsError(e, CodeInternal) != ours {
			t.Errorf("AsError(%v) is another one", e)
		}
	}
	if errors.Is(err, &Error{Code: CodeBusy, Message: "another text"}) || errors.Is(err, errors.New("busy")) {
		t.Error("errors are compared by more than the code")
	}
	plain := errors.New("exit status 1")
	if CodeOf(plain) != CodeInternal || CodeOf(nil) != "" {
		t.Error("code of a plain error or of none")
	}
	if got := AsError(plain, CodeBackendFailed); got.Code != CodeBackendFailed || got.Message != "exit status 1" {
		t.Error(got)
	}
	if AsError(nil, CodeInternal) != nil {
		t.Error("nil became an error")
	}
	if strings.Contains(Errorf(CodeBusy, "x").Error(), "\n") {
		t.Error("more than one line")
	}
}

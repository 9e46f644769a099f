package messages

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// docs/protocol.md is what people write clients from, so what it says is compared with
// what the code does. Streams and buckets are compared in protocol_names_test.go, in
// package messages_test, which may import package bus.

func protocol(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// section returns what stands under a heading, up to the next one of any level.
func section(t *testing.T, doc, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(doc, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("docs/protocol.md has no heading %q", heading)
	}
	if i := regexp.MustCompile(`(?m)^#{1,6} `).FindStringIndex(rest); i != nil {
		rest = rest[:i[0]]
	}
	return rest
}

// rows returns the cells of the tables in a section, without their heads.
func rows(text string) (list [][]string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		list = append(list, cells)
	}
	return list
}

// spans returns all code between backticks.
func spans(text string) (list []string) {
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	return list
}

func TestProtocolSubjects(t *testing.T) {
	doc := protocol(t)
	field := regexp.MustCompile(`<[a-z]+>|\{[a-z]+\}`)
	shape := func(s string) string { return field.ReplaceAllString(s, "*") }
	documented := map[string]bool{}
	for _, row := range rows(section(t, doc, "## Subjects")) {
		documented[shape(spans(row[0])[0])] = true
	}
	for _, l := range layouts {
		site := "<site>"
		if slices.Contains([]Kind{KindRoutes, KindEvent, KindControl, KindStop, KindStopAll, KindRelease, KindReleaseAll, KindStopAck, KindData}, l.kind) {
			site = FleetSite
		}
		want := shape("fb.<fleet>." + site + "." + strings.Join(l.tokens, "."))
		if !documented[want] {
			t.Errorf("kind %s: %s is not in the table of subjects", l.kind, want)
		}
		delete(documented, want)
	}
	for s := range documented {
		t.Errorf("%s is in the table of subjects and not one of ours", s)
	}
	// Whatever subject the text names elsewhere has the form of one of ours.
	sample := strings.NewReplacer("<class>", "inference", "<inbox>", "x1", "<job>", "j1", "<priority>", "high", "<key>", "k1", "<request>", "a1", "<id>", "a1",
		"<kind>", "elected", "<verb>", "state", "<fleet>", "demo", "<site>", "main", "<agent>", "edge-1", "<robot>", "robot-1", "<origin>", "lab", "<task>", "detect", "<replica>", "0")
	for _, s := range spans(doc) {
		if !strings.HasPrefix(s, "fb.<fleet>.") || strings.HasSuffix(s, ">.") || strings.HasSuffix(s, ".>") || strings.HasSuffix(s, "…") {
			continue
		}
		tokens := strings.Split(sample.Replace(s), ".")
		for i := range tokens {
			if tokens[i] == "*" {
				tokens[i] = "inference" // a name in any place, and a class in that of one
				if tokens[i-1] == "jobs" {
					tokens[i] = "high" // there it is a priority
				}
			}
		}
		if _, err := ParseSubject(strings.Join(tokens, ".")); err != nil {
			t.Errorf("the text names %s: %v", s, err)
		}
	}
}

func TestProtocolHeaders(t *testing.T) {
	doc := protocol(t)
	ours := constants(t, "request.go", "Header")
	if len(ours) < 20 {
		t.Fatalf("only %d headers found in request.go", len(ours))
	}
	have := spans(doc)
	for _, h := range ours {
		if !slices.Contains(have, h) {
			t.Errorf("header %s is not described", h)
		}
	}
	for _, h := range have {
		if strings.HasPrefix(h, "Fb-") && !slices.Contains(ours, h) {
			t.Errorf("header %s is described and not one of ours", h)
		}
	}
}

// constants returns the values of the string constants of a file whose names begin with
// a prefix.
func constants(t *testing.T, file, prefix string) (list []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range s.Names {
			if strings.HasPrefix(name.Name, prefix) && i < len(s.Values) {
				if lit, ok := s.Values[i].(*ast.BasicLit); ok {
					if v, err := strconv.Unquote(lit.Value); err == nil {
						list = append(list, v)
					}
				}
			}
		}
		return true
	})
	return list
}

func TestProtocolCodes(t *testing.T) {
	list := rows(section(t, protocol(t), "## Error codes"))
	if len(list) != len(Codes()) {
		t.Errorf("%d codes are described, there are %d", len(list), len(Codes()))
	}
	for i, c := range Codes() {
		if i < len(list) && (list[i][0] != "`"+string(c)+"`" || list[i][1] != c.Advice().String()) {
			t.Errorf("row %d is %s | %s, want `%s` | %s", i+1, list[i][0], list[i][1], c, c.Advice())
		}
	}
}

// wireType is how the document calls a type.
func wireType(typ reflect.Type) string {
	switch typ {
	case reflect.TypeFor[time.Time]():
		return "timestamp"
	case reflect.TypeFor[[]byte]():
		return "bytes"
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return wireType(typ.Elem())
	case reflect.Slice:
		return "array of " + wireType(typ.Elem())
	case reflect.Map:
		return "map of " + wireType(typ.Elem())
	case reflect.Struct:
		return fmt.Sprintf("[%s](#%s)", typ.Name(), strings.ToLower(typ.Name()))
	case reflect.Float64:
		return "float"
	case reflect.Int, reflect.Int64:
		return "int"
	case reflect.Uint64:
		return "uint"
	default:
		return typ.Kind().String()
	}
}

func TestProtocolMessages(t *testing.T) {
	doc := protocol(t)
	done := map[reflect.Type]bool{}
	var check func(typ reflect.Type)
	check = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ == reflect.TypeFor[time.Time]() || done[typ] {
			return
		}
		done[typ] = true
		var want []string
		for i := range typ.NumField() {
			f := typ.Field(i)
			key, options, _ := strings.Cut(f.Tag.Get("msgpack"), ",")
			if key == "-" {
				continue
			}
			if key == "" {
				t.Errorf("%s.%s has no key", typ.Name(), f.Name)
			}
			row := "`" + key + "` | " + wireType(f.Type)
			if options == "omitempty" {
				row += ", optional"
			}
			want = append(want, row)
			check(f.Type)
		}
		var got []string
		for _, row := range rows(section(t, doc, "### "+typ.Name())) {
			got = append(got, row[0]+" | "+row[1])
			if row[2] == "" {
				t.Errorf("%s: %s is not explained", typ.Name(), row[0])
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s is described as\n\t%s\nand is\n\t%s", typ.Name(), strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
	for _, s := range samples() {
		check(reflect.TypeOf(s.want))
	}
	if len(done) < 25 {
		t.Errorf("only %d types were compared", len(done))
	}
}

func TestProtocolWords(t *testing.T) {
	doc := protocol(t)
	have := spans(doc)
	var words []string
	for _, s := range []GoalState{GoalUnknown, GoalAccepted, GoalExecuting, GoalCanceling, GoalSucceeded, GoalCanceled, GoalAborted} {
		words = append(words, string(s))
	}
	for _, s := range []ReplicaState{ReplicaPending, ReplicaLoading, ReplicaReady, ReplicaDraining, ReplicaStopped, ReplicaFailed} {
		words = append(words, string(s))
	}
	for _, s := range []AgentState{AgentReady, AgentDraining, AgentStale, AgentLost} {
		words = append(words, string(s))
	}
	for _, s := range []ReplyKind{ReplyAccepted, ReplyProgress, ReplyResult} {
		words = append(words, string(s))
	}
	for _, s := range []DataState{DataSynced, DataFetching, DataFailed} {
		words = append(words, string(s))
	}
	for _, s := range []MailState{MailDelivered, MailWaiting, MailExpired, MailRefused} {
		words = append(words, string(s))
	}
	for _, s := range Tiers() {
		words = append(words, string(s))
	}
	words = append(words, string(Training), string(Inference), string(Action), string(Share), string(Whole), string(Durable), string(Direct),
		string(Static), string(Dynamic), string(Adaptive), string(PerRobot), string(PerSite), DefaultSite, FleetSite, AnyHandler)
	for _, w := range words {
		if !slices.Contains(have, w) {
			t.Errorf("%q is not explained", w)
		}
	}
	for _, n := range []string{
		fmt.Sprintf("%d,%03d,%03d bytes", MaxControl/1_000_000, MaxControl/1000%1000, MaxControl%1000),
		fmt.Sprintf("deeper than %d", maxDepth),
		fmt.Sprintf("%d,%03d array elements", maxElements/1000, maxElements%1000),
		fmt.Sprintf("1 to %d ASCII letters", MaxName),
		fmt.Sprintf("is longer than %d bytes, makes the message malformed", maxHeaderText),
		fmt.Sprintf("`v` in a control message is %d.", Version),
	} {
		if !strings.Contains(strings.Join(strings.Fields(doc), " "), n) {
			t.Errorf("the document does not say %q", n)
		}
	}
}

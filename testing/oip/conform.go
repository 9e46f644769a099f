package oip

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Target is what a conformance run asks.
type Target struct {
	URL    string // http://host:port
	Model  string // under which the stand-in's model is to be found there
	Key    string // sent as Authorization: Api-Key; "": none
	Client *http.Client
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do asks once.
func (t Target) do(ctx context.Context, method, path string, body []byte, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, t.URL+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if t.Key != "" {
		req.Header.Set("Authorization", "Api-Key "+t.Key)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := t.Client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, text}, err
}

// JSON is a request in JSON for the numbers.
func JSON(id string, values ...float64) []byte {
	text, _ := json.Marshal(inference{ID: id, Inputs: []tensor{{Name: "IN", Datatype: "FP32", Shape: []int{len(values)}, Data: values}}}) // numbers and names always can
	return text
}

// Binary is a request with a binary tensor of n numbers, and the length of its header.
func Binary(id string, n int) (body []byte, header int) {
	head, _ := json.Marshal(inference{ID: id, Parameters: map[string]any{"binary_data_output": true}, // numbers and names always can
		Inputs: []tensor{{Name: "IN", Datatype: "FP32", Shape: []int{n}, Parameters: map[string]any{"binary_data_size": 4 * n}}}})
	body = head
	for i := range n {
		body = binary.LittleEndian.AppendUint32(body, math.Float32bits(float32(i)))
	}
	return body, len(head)
}

// Infer asks with a binary tensor of n numbers, checks the answer, and returns what the
// request took.
func (t Target) Infer(ctx context.Context, id string, n int) (time.Duration, error) {
	body, header := Binary(id, n)
	begun := time.Now()
	a, err := t.do(ctx, http.MethodPost, "/v2/models/"+t.Model+"/infer", body, "Content-Type", "application/octet-stream", headerBinary, strconv.Itoa(header))
	took := time.Since(begun)
	if err == nil {
		err = checkBinary(a, id, "2", n)
	}
	return took, err
}

// Echo asks with bytes that are no tensor, which the stand-in returns as they are, checks
// them, and returns what the request took.
func (t Target) Echo(ctx context.Context, body []byte) (time.Duration, error) {
	begun := time.Now()
	a, err := t.do(ctx, http.MethodPost, "/v2/models/"+t.Model+"/infer", body, "Content-Type", "application/x-bytes")
	took := time.Since(begun)
	if err == nil && (a.status != http.StatusOK || !bytes.Equal(a.body, body)) {
		err = fmt.Errorf("status %d, %d bytes came back as %d others", a.status, len(body), len(a.body))
	}
	return took, err
}

func checkBinary(a answer, id, version string, n int) error {
	if a.status != http.StatusOK {
		return fmt.Errorf("status %d: %.200s", a.status, a.body)
	}
	size, err := strconv.Atoi(a.header.Get(headerBinary))
	if err != nil || size > len(a.body) {
		return fmt.Errorf("header %s is %q, the answer has %d bytes", headerBinary, a.header.Get(headerBinary), len(a.body))
	}
	var out inference
	if err := json.Unmarshal(a.body[:size], &out); err != nil {
		return fmt.Errorf("the header of the answer: %w", err)
	}
	if out.ID != id || out.Version != version || len(out.Outputs) != 1 {
		return fmt.Errorf("id %q, version %q, %d outputs; want %q, %q, 1", out.ID, out.Version, len(out.Outputs), id, version)
	}
	raw := a.body[size:]
	if len(raw) != 4*n {
		return fmt.Errorf("%d bytes of tensor, want %d", len(raw), 4*n)
	}
	for i := range n {
		if v := math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])); v != float32(2*i) {
			return fmt.Errorf("number %d is %v, want %v", i, v, 2*i)
		}
	}
	return nil
}

// Conform runs all checks and returns what is wrong, a line each.
func (t Target) Conform(ctx context.Context) (checks int, wrong []string) {
	model := "/v2/models/" + t.Model
	check := func(name, method, path string, body []byte, header []string, ok func(answer) error) {
		checks++
		a, err := t.do(ctx, method, path, body, header...)
		if err == nil {
			err = ok(a)
		}
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %s %s: %v", name, method, path, err))
		}
	}
	get := func(name, path string, ok func(answer) error) { check(name, http.MethodGet, path, nil, nil, ok) }
	is := func(status int) func(answer) error {
		return func(a answer) error {
			if a.status != status {
				return fmt.Errorf("status %d, want %d: %.200s", a.status, status, a.body)
			}
			return nil
		}
	}
	isError := func(status int) func(answer) error {
		return func(a answer) error {
			var page struct {
				Error string `json:"error"`
			}
			if err := json.Unmarshal(a.body, &page); err != nil || page.Error == "" {
				return fmt.Errorf("an error has the form {\"error\":\"…\"}, found %.200s", a.body)
			}
			return is(status)(a)
		}
	}
	get("live", "/v2/health/live", is(200))
	get("ready", "/v2/health/ready", is(200))
	get("server", "/v2", func(a answer) error {
		var page struct {
			Name, Version string
			Extensions    []string
		}
		if err := json.Unmarshal(a.body, &page); err != nil || page.Name == "" || !strings.Contains(strings.Join(page.Extensions, " "), "binary_tensor_data") {
			return fmt.Errorf("%.200s: %w", a.body, err)
		}
		return is(200)(a)
	})
	for _, path := range []string{model, model + "/versions/1"} {
		get("metadata", path, func(a answer) error {
			if string(a.body) != Metadata || a.header.Get("Content-Type") != "application/json" {
				return fmt.Errorf("%q as %s", a.body, a.header.Get("Content-Type"))
			}
			return is(200)(a)
		})
		get("model ready", path+"/ready", is(200))
	}
	get("no model", "/v2/models/other", isError(404))
	get("no model ready", "/v2/models/other/ready", isError(404))
	get("no version", model+"/versions/7", isError(404))
	get("no version ready", model+"/versions/7/ready", isError(404))
	jsonType := []string{"Content-Type", "application/json"}
	for path, version := range map[string]string{model + "/infer": "2", model + "/versions/1/infer": "1"} {
		check("JSON", http.MethodPost, path, JSON("a-1", 1, 2.5, -3), jsonType, func(a answer) error {
			want := `{"model_name":"double","model_version":"` + version + `","id":"a-1","outputs":[{"name":"OUT","datatype":"FP32","shape":[3],"data":[2,5,-6]}]}`
			if string(a.body) != want || a.header.Get(headerBinary) != "" {
				return fmt.Errorf("%.300s, want %s", a.body, want)
			}
			return is(200)(a)
		})
		for _, n := range []int{0, 1, 75_000} {
			body, header := Binary("b-2", n)
			check("binary", http.MethodPost, path, body, []string{"Content-Type", "application/octet-stream", headerBinary, strconv.Itoa(header)},
				func(a answer) error { return checkBinary(a, "b-2", version, n) })
		}
	}
	check("malformed", http.MethodPost, model+"/infer", []byte("{"), jsonType, isError(400))
	check("empty", http.MethodPost, model+"/infer", nil, jsonType, isError(400))
	check("header too long", http.MethodPost, model+"/infer", []byte("{}"), []string{"Content-Type", "application/octet-stream", headerBinary, "3"}, isError(400))
	check("header no number", http.MethodPost, model+"/infer", []byte("{}"), []string{"Content-Type", "application/octet-stream", headerBinary, "x"}, isError(400))
	check("inference of no model", http.MethodPost, "/v2/models/other/infer", JSON("c", 1), jsonType, isError(404))
	check("inference of no version", http.MethodPost, model+"/versions/7/infer", JSON("c", 1), jsonType, isError(404))
	return checks, wrong
}

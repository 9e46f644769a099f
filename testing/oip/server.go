package oip

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// headerBinary is the header of the binary extension.
const headerBinary = "Inference-Header-Content-Length"

// Model is the one model of a [Server]; it doubles numbers. Bytes are echoed with any
// content type that is neither JSON nor application/octet-stream.
const Model = "double"

// Metadata is what the server says of its model.
const Metadata = `{"name":"double","versions":["1","2"],"platform":"stand_in","inputs":[{"name":"IN","datatype":"FP32","shape":[-1]}],"outputs":[{"name":"OUT","datatype":"FP32","shape":[-1]}]}`

// The faults that can be planted in a server, to see that a conformance run notices.
const (
	FaultHeader = "header" // answers with binary tensors lack the header that says so
	FaultBytes  = "bytes"  // one byte of an answer is another one
	FaultStatus = "status" // errors are said with 200
	FaultReady  = "ready"  // a model that is not there is ready
)

// Faults lists them.
func Faults() []string { return []string{FaultHeader, FaultBytes, FaultStatus, FaultReady} }

// Server is the stand-in, an http.Handler.
type Server struct {
	Service  time.Duration // that an inference takes
	Fault    string
	NotReady atomic.Bool
	// Misbehave, where it is not nil, may take an inference over; true: it has.
	Misbehave func(w http.ResponseWriter, r *http.Request, body []byte) bool
}

type tensor struct {
	Name       string         `json:"name"`
	Datatype   string         `json:"datatype"`
	Shape      []int          `json:"shape"`
	Data       []float64      `json:"data,omitempty"`
	Parameters map[string]any `json:"parameters,omitempty"`
}

type inference struct {
	Model      string         `json:"model_name,omitempty"`
	Version    string         `json:"model_version,omitempty"`
	ID         string         `json:"id,omitempty"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Inputs     []tensor       `json:"inputs,omitempty"`
	Outputs    []tensor       `json:"outputs,omitempty"`
}

func (s *Server) fail(w http.ResponseWriter, status int, format string, args ...any) {
	if s.Fault == FaultStatus {
		status = http.StatusOK
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": fmt.Sprintf(format, args...)}) // whoever has gone needs none
}

// ServeHTTP serves a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	json := func(text string) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, text)
	}
	switch r.URL.Path {
	case "/v2":
		json(`{"name":"stand-in","version":"1","extensions":["binary_tensor_data"]}`)
		return
	case "/v2/health/live", "/v2/health/ready":
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/models/"), "/")
	version := "2" // the newest
	if len(parts) >= 3 && parts[1] == "versions" {
		version = parts[2]
		parts = slices.Delete(parts, 1, 3)
	}
	known := parts[0] == Model && slices.Contains([]string{"1", "2"}, version)
	switch {
	case len(parts) == 2 && parts[1] == "ready" && (known || s.Fault == FaultReady):
		if s.NotReady.Load() {
			s.fail(w, http.StatusServiceUnavailable, "loading weights")
		}
	case !known:
		s.fail(w, http.StatusNotFound, "no model %s of version %s", parts[0], version)
	case len(parts) == 1 && r.Method == http.MethodGet:
		json(Metadata)
	case len(parts) == 2 && parts[1] == "infer" && r.Method == http.MethodPost:
		s.infer(w, r, version)
	default:
		s.fail(w, http.StatusNotFound, "no such page")
	}
}

func (s *Server) infer(w http.ResponseWriter, r *http.Request, version string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if s.Misbehave != nil && s.Misbehave(w, r, body) {
		return
	}
	if s.Service > 0 {
		timer := time.NewTimer(s.Service)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	kind := r.Header.Get("Content-Type")
	if kind != "application/json" && kind != "application/octet-stream" && kind != "" {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // whoever has gone needs none
		return
	}
	head, tail := body, []byte(nil)
	if n := r.Header.Get(headerBinary); n != "" {
		size, err := strconv.Atoi(n)
		if err != nil || size < 0 || size > len(body) {
			s.fail(w, http.StatusBadRequest, "%s is %q, the body has %d bytes", headerBinary, n, len(body))
			return
		}
		head, tail = body[:size], body[size:]
	}
	var in inference
	if err := json.Unmarshal(head, &in); err != nil {
		s.fail(w, http.StatusBadRequest, "the request is not JSON: %v", err)
		return
	}
	if len(in.Inputs) != 1 || in.Inputs[0].Datatype != "FP32" {
		s.fail(w, http.StatusBadRequest, "expected one input of FP32, found %d", len(in.Inputs))
		return
	}
	values := in.Inputs[0].Data
	if size, ok := in.Inputs[0].Parameters["binary_data_size"].(float64); ok {
		if int(size) != len(tail) || len(tail)%4 != 0 {
			s.fail(w, http.StatusBadRequest, "binary_data_size is %v, there are %d bytes", size, len(tail))
			return
		}
		for i := 0; i < len(tail); i += 4 {
			values = append(values, float64(math.Float32frombits(binary.LittleEndian.Uint32(tail[i:]))))
		}
	}
	out := inference{Model: Model, Version: version, ID: in.ID, Outputs: []tensor{{Name: "OUT", Datatype: "FP32", Shape: []int{len(values)}}}}
	var raw []byte
	isBinary, _ := in.Parameters["binary_data_output"].(bool)
	if isBinary {
		for _, v := range values {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(2*v)))
		}
		if s.Fault == FaultBytes && len(raw) > 0 {
			raw[len(raw)/2] ^= 1
		}
		out.Outputs[0].Parameters = map[string]any{"binary_data_size": len(raw)}
	} else {
		for _, v := range values {
			out.Outputs[0].Data = append(out.Outputs[0].Data, 2*v)
		}
	}
	text, err := json.Marshal(out)
	if err != nil {
		s.fail(w, http.StatusInternalServerError, "%v", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if isBinary {
		w.Header().Set("Content-Type", "application/octet-stream")
		if s.Fault != FaultHeader {
			w.Header().Set(headerBinary, strconv.Itoa(len(text)))
		}
	}
	text = append(text, raw...)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // whoever has gone needs none
}

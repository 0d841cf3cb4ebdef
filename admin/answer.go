package admin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
)

// answer is an answer that is made in memory, so that a client which takes it slowly keeps
// nobody else from being answered. It is an http.ResponseWriter for the library that makes metrics.
type answer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func newAnswer() *answer { return &answer{status: http.StatusOK, header: http.Header{}} }

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// answerOf is an answer with a value.
func answerOf(status int, v any) (*answer, error) {
	a := newAnswer()
	a.status = status
	a.header.Set("Content-Type", "application/json")
	a.header.Set("Cache-Control", "no-store")
	enc := json.NewEncoder(&a.body)
	enc.SetIndent("", "  ")
	return a, enc.Encode(v)
}

// answerError is the body of the answer to a request that failed.
type answerError struct {
	Error string `json:"error"`
}

// failure is the answer that tells an error.
func failure(err error) *answer {
	a, _ := answerOf(statusOf(err), answerError{err.Error()}) // which is always JSON
	if a.status == http.StatusRequestEntityTooLarge {
		a.header.Set("Connection", "close") // rather than read it
	}
	return a
}

// send sends the answer.
func (a *answer) send(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(a.body.Len()))
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // to a client that may be gone
}

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	answerTimeout = 5 * time.Second
	// maxAnswer is more than all nodes and all of the history take.
	maxAnswer = 64 << 20
)

// Client asks the server of a store by its socket. It holds nothing between requests, and
// many goroutines may use it at once.
type Client struct {
	http http.Client
	path string
}

// Dial returns a client of whatever server serves the store with that state directory when
// it is asked.
func Dial(stateDir string) *Client {
	path := filepath.Join(stateDir, SocketName)
	return &Client{path: path, http: http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialSocket(ctx, path) },
		DisableKeepAlives: true,
	}}}
}

// NoServer reports whether an error of Get means that no server serves the store.
func NoServer(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// Get asks for a path, such as /v1/nodes, and decodes the answer. It takes 5 seconds at
// most.
func (c *Client) Get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://rootnfsd"+path, nil)
	if err != nil {
		return err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("ask the server by %s: %w", c.path, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("ask the server by %s: %w", c.path, err)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("the server answers %s with more than %d MiB", path, maxAnswer>>20)
	}
	if answer.StatusCode != http.StatusOK {
		return refusal(answer.Status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("the server answers %s with what is not understood; is it of another version? %w", path, err)
	}
	return nil
}

// refusal is the error that a server answered with.
func refusal(status string, body []byte) error {
	var told answerError
	if json.Unmarshal(body, &told) != nil || told.Error == "" {
		return fmt.Errorf("the server answers %s", status)
	}
	return fmt.Errorf("the server answers: %s", told.Error)
}

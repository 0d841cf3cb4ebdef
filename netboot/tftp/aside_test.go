package tftp

import (
	"context"
	"errors"
	"slices"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// stuck is a File whose Confirmed is the test's.
type stuck struct {
	closing
	confirmed func()
}

func (f stuck) Confirmed() { f.confirmed() }

// TestSlowLog lets the log, Confirmed and Done hang, each in turn. Files are sent
// all the same, and Serve returns.
func TestSlowLog(t *testing.T) {
	for _, what := range []string{"the log", "Confirmed", "Done"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			gate, hangs := make(chan struct{}), make(chan struct{}, 1000)
			hang := func() {
				hangs <- struct{}{}
				<-gate
			}
			h := start(t, func(h *harness) {
				h.limits.aside = 4
				switch what {
				case "Done":
					h.Done = func(Result) { hang() }
				case "the log":
					h.Log = h.Log.WithOptions(zap.Hooks(func(zapcore.Entry) error { hang(); return nil }))
				}
			})
			h.openBy(func(ctx context.Context, r Request) (File, error) {
				if r.Name == "broken" {
					return nil, errTest
				}
				f := stuck{closing: closing{h.file(pattern(1000)), func() {}}, confirmed: func() {}}
				if what == "Confirmed" {
					done := false
					f.confirmed = func() { hang(); done = true }
					f.close = func() {
						if !done && r.Name == "first" {
							t.Error("a file is closed while Confirmed is called")
						}
					}
				}
				return f, nil
			})
			for i := range 10 {
				name := "f"
				if i == 0 {
					name = "first"
				}
				if got, err := h.client(t).fetch(name, nil); err != nil || len(got) != 1000 {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				if _, err := h.client(t).fetch("broken", nil); err == nil {
					t.Fatal("no error")
				}
				if i == 0 {
					<-hangs
				}
			}
			h.stop()
			close(gate)
			eventually(t, "all files are closed", func() bool { return h.closed.Load() == h.opened.Load() })
			eventually(t, "the log says what it lacks", func() bool {
				return h.logs.FilterMessageSnippet("was not noted").Len() > 0
			})
		})
	}
}

// TestOrderAside: Confirmed comes before Done and before Close.
func TestOrderAside(t *testing.T) {
	order := make(chan string, 10)
	h := start(t, func(h *harness) {
		h.Done = func(r Result) {
			if !errors.Is(r.Err, ErrAborted) {
				t.Errorf("%+v", r)
			}
			order <- "Done"
		}
	})
	begun, gate := make(chan struct{}), make(chan struct{})
	h.openBy(func(context.Context, Request) (File, error) {
		return stuck{closing{h.file(pattern(1000)), func() { order <- "Close" }}, func() {
			close(begun)
			<-gate
			order <- "Confirmed"
		}}, nil
	})
	c := h.client(t)
	c.ask("f")
	c.wantBlock(1)
	c.send(c.tid, []byte("\x00\x05\x00\x00x\x00"))
	<-begun
	eventually(t, "the transfer is over", func() bool { return h.Stats().Aborted == 1 })
	close(gate)
	first := <-order
	if rest := []string{<-order, <-order}; first != "Confirmed" || !slices.Contains(rest, "Close") || !slices.Contains(rest, "Done") {
		t.Errorf("%s is called, then %s; want Confirmed, then Close and Done", first, rest)
	}
}

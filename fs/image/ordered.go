package image

import (
	"context"
	"runtime"
	"sync"
)

// ordered runs a pipeline: produce emits items, work does what is costly about
// each, several at a time, and consume, on the caller's goroutine, takes them in
// the order in which they were emitted. Not many more than depth items are under
// way at any time. The first error of any of them, or the end of ctx, stops all
// and is returned when all have stopped.
func ordered[T any](ctx context.Context, depth int, produce func(emit func(T) error) error, work, consume func(T) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	type task struct {
		item T
		done chan error // buffered, so that a worker never waits
	}
	// What is in todo is in queue too, so only the latter makes produce wait.
	todo, queue := make(chan task, depth+1), make(chan task, depth)
	emit := func(item T) error {
		t := task{item, make(chan error, 1)}
		select {
		case queue <- t:
			todo <- t
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}

	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(queue)
		defer close(todo)
		if err := produce(emit); err != nil {
			stop(err)
		}
	})
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for t := range todo {
				if ctx.Err() == nil {
					t.done <- work(t.item)
				} else {
					t.done <- context.Cause(ctx)
				}
			}
		})
	}
	for t := range queue {
		err := <-t.done
		if err == nil && ctx.Err() == nil {
			err = consume(t.item)
		}
		if err != nil {
			stop(err) // and go on, so that nobody waits for room in queue
		}
	}
	wg.Wait()
	return context.Cause(ctx)
}

package main

import (
	"errors"
	"os"
	"runtime/pprof"
)

// profileTo writes a profile of the processor time that is used from now on to
// a file, "" being none. The function that it returns ends it. make pgo feeds
// such a profile to the compiler, as default.pgo.
func profileTo(path string) (finish func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

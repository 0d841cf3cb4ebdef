// Command rootnfsd serves versioned golden root file systems over NFSv3 to
// diskless nodes. See README.md for how it is used and ARCHITECTURE.md for how
// it is built.
package main

import (
	"errors"
	"fmt"
	"os"
)

func main() {
	err := run(os.Args)
	if err == nil {
		return
	}
	status := statusError{err, 1}
	errors.As(err, &status)
	if status.error != nil {
		fmt.Fprintln(os.Stderr, "rootnfsd:", status.error)
	}
	os.Exit(status.status)
}

// statusError is an error with an exit status of its own. One that wraps nil is
// no mistake that there is anything to say about.
type statusError struct {
	error
	status int
}

func (e statusError) Error() string {
	if e.error == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.error.Error()
}

func run(args []string) error {
	app := newApp()
	return app.Run(flagsFirst(app, args))
}

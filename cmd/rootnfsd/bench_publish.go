package main

import (
	"context"
	"errors"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/rootnfsd/rootnfsd/bench"
)

// publish saves what was measured as --json says, and shows it, even where an
// error has put an end to the measuring.
func publish(c *cli.Context, report *bench.Report, failed error, show ...func(io.Writer, *bench.Report) error) error {
	if errors.Is(failed, context.Canceled) {
		failed = errors.New("stopped; what was measured until then is shown")
	}
	errs := []error{failed}
	switch file := c.String("json"); file {
	case "-":
		return errors.Join(failed, writeJSON(c.App.Writer, report))
	case "":
	default:
		errs = append(errs, report.Save(file))
	}
	for _, f := range show {
		errs = append(errs, f(c.App.Writer, report))
	}
	return errors.Join(errs...)
}

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// race makes files that another node makes, too, and prints which of them it made.
func race(flags *flag.FlagSet, args []string) error {
	dir := flags.String("dir", ".", "where the files are made")
	node := flags.String("node", "", "what is written to files that were made here")
	rounds := flags.Int("rounds", 1000, "how many files")
	flags.Parse(args)
	for i := range *rounds {
		f, err := os.OpenFile(filepath.Join(*dir, fmt.Sprint(i)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = f.WriteString(*node)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		fmt.Println(i)
	}
	return nil
}

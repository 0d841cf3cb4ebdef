package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// list lists a directory until it is gone, while somebody removes what is in it.
// Nothing is added, so no listing has a name twice, or one that the listing before
// did not have.
func list(flags *flag.FlagSet, args []string) error {
	dir := flags.String("dir", ".", "the directory")
	flags.Parse(args)
	var before map[string]bool
	all, some := 0, false
	for n := 0; ; n++ {
		time.Sleep(100 * time.Millisecond) // the other one should get on
		names, err := namesIn(*dir)
		if n > 0 && (errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESTALE)) {
			if !some {
				return errors.New("no listing was of a part: this sees nothing")
			}
			fmt.Printf("%d listings\n", n)
			return nil
		}
		if err != nil {
			return fmt.Errorf("listing %d: %w", n, err)
		}
		now := map[string]bool{}
		for _, name := range names {
			switch {
			case now[name]:
				return fmt.Errorf("listing %d: %s is there twice", n, name)
			case n > 0 && !before[name]:
				return fmt.Errorf("listing %d: %s was missing in the one before", n, name)
			}
			now[name] = true
		}
		before = now
		all = max(all, len(now))
		some = some || len(now) > 0 && len(now) < all
	}
}

// namesIn is what a directory holds, or an error of NOENT when it is gone.
func namesIn(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

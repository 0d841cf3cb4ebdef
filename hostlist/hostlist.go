// Package hostlist reads lists of nodes as operators of clusters write them:
// pi-[01-03,07],head stands for pi-01, pi-02, pi-03, pi-07 and head. It knows
// nothing of nodes.
//
// The form is that of pdsh, SLURM and Warewulf, with any number of ranges in a
// name. Ranges keep the zeros that their first number begins with.
package hostlist

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Most is how many names a list may stand for.
const Most = 65536

// Expand returns the names that lists stand for, in the order in which they are
// written, each once. The error says which part of which list is wrong.
func Expand(lists ...string) ([]string, error) {
	var names []string
	for _, list := range lists {
		terms, err := split(list)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", list, err)
		}
		for _, term := range terms {
			more, err := expand(term)
			if err == nil && len(names)+len(more) > Most {
				err = fmt.Errorf("it stands for more than %d names", Most)
			}
			if err != nil {
				return nil, fmt.Errorf("%q: %w", list, err)
			}
			names = append(names, more...)
		}
	}
	return unique(names), nil
}

func unique(names []string) []string {
	seen := make(map[string]bool, len(names))
	return slices.DeleteFunc(names, func(name string) bool {
		known := seen[name]
		seen[name] = true
		return known
	})
}

// split cuts a list at the commas outside of brackets.
func split(list string) ([]string, error) {
	var terms []string
	inside, start := false, 0
	add := func(term string) error {
		if term = strings.TrimSpace(term); term == "" {
			return fmt.Errorf("there is an empty name")
		}
		terms = append(terms, term)
		return nil
	}
	for i, c := range []byte(list) {
		switch {
		case c == '[' && inside, c == ']' && !inside:
			return nil, fmt.Errorf("a %q that fits nothing", c)
		case c == '[', c == ']':
			inside = c == '['
		case c == ',' && !inside:
			if err := add(list[start:i]); err != nil {
				return nil, err
			}
			start = i + 1
		}
	}
	if inside {
		return nil, fmt.Errorf("a '[' without its ']'")
	}
	return terms, add(list[start:])
}

// expand returns what one term stands for. Its brackets are in order.
func expand(term string) ([]string, error) {
	before, rest, ok := strings.Cut(term, "[")
	if !ok {
		return []string{term}, nil
	}
	ranges, after, _ := strings.Cut(rest, "]")
	tails, err := expand(after)
	if err != nil {
		return nil, err
	}
	var names []string
	for r := range strings.SplitSeq(ranges, ",") {
		numbers, err := numbersOf(strings.TrimSpace(r))
		if err == nil && len(names)+len(numbers)*len(tails) > Most {
			err = fmt.Errorf("it stands for more than %d names", Most)
		}
		if err != nil {
			return nil, err
		}
		for _, n := range numbers {
			for _, tail := range tails {
				names = append(names, before+n+tail)
			}
		}
	}
	return names, nil
}

// numbersOf returns the numbers of a range: 7, or 01-12.
func numbersOf(r string) ([]string, error) {
	first, last, ok := strings.Cut(r, "-")
	if !ok {
		last = first
	}
	from, err := number(first)
	if err != nil {
		return nil, err
	}
	to, err := number(last)
	switch {
	case err != nil:
		return nil, err
	case to < from:
		return nil, fmt.Errorf("%s goes down: want %s-%s", r, last, first)
	case to-from >= Most:
		return nil, fmt.Errorf("%s stands for more than %d names", r, Most)
	}
	var numbers []string
	for n := from; n <= to; n++ {
		numbers = append(numbers, fmt.Sprintf("%0*d", len(first), n))
	}
	return numbers, nil
}

// number reads an unsigned number in decimal digits.
func number(s string) (int, error) {
	const digits = 9 // fits an int on any machine
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || len(s) > digits || s[0] == '+' {
		return 0, fmt.Errorf("%q is not a number or a range, such as 7 or 01-12", s)
	}
	return int(n), nil
}

// Compress writes names as a list: runs of numbers that follow each other, with
// the same text before them and no text behind, become ranges. The names must be
// sorted for that; Expand gives them back.
func Compress(names []string) string {
	var terms []string
	for i := 0; i < len(names); {
		prefix, digits := cutNumber(names[i])
		n := i + 1
		if digits != "" {
			for n < len(names) && follows(names[n], prefix, digits, n-i) {
				n++
			}
		}
		if n-i == 1 {
			terms = append(terms, names[i])
		} else {
			_, last := cutNumber(names[n-1])
			terms = append(terms, fmt.Sprintf("%s[%s-%s]", prefix, digits, last))
		}
		i = n
	}
	return strings.Join(terms, ",")
}

// cutNumber cuts the digits off the end of a name, if they are a number that
// ranges can have.
func cutNumber(name string) (prefix, digits string) {
	prefix = strings.TrimRight(name, "0123456789")
	digits = name[len(prefix):]
	if _, err := number(digits); err != nil {
		return name, ""
	}
	return prefix, digits
}

// follows reports whether a name is the one that comes so many places behind
// prefix and digits in a range.
func follows(name, prefix, digits string, places int) bool {
	p, d := cutNumber(name)
	if p != prefix || d == "" {
		return false
	}
	n, _ := number(digits)
	return d == fmt.Sprintf("%0*d", len(digits), n+places)
}

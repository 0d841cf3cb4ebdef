#!/bin/sh
# What a programmer does in a home, at /tmp/home/user: clones a repository, builds it, changes something.
set -eu
export HOME=/tmp/home/user GIT_CONFIG_GLOBAL=/tmp/home/user/gitconfig
cd /tmp/home/user
git config --global user.name user
git config --global user.email user@node
git config --global init.defaultBranch main

# A program of a hundred sources, in memory.
origin=/tmp/origin
mkdir $origin
cd $origin
git init -q
printf 'int sum(void);\n' >common.h
printf '#include <stdio.h>\n#include "common.h"\nint main(void) { printf("%%d\\n", sum()); return 0; }\n' >main.c
{
    seq 100 | sed 's/.*/int f&(void);/'
    printf 'int sum(void) { return 0'
    seq 100 | sed 's/.*/ + f&()/'
    printf '; }\n'
} >sum.c
for i in $(seq 100); do
    mkdir -p dir$((i % 7))
    printf '#include "../common.h"\nint f%d(void) { return %d; }\n' "$i" "$i" >dir$((i % 7))/f"$i".c
done
cat >Makefile <<'END'
sources := $(wildcard *.c dir*/*.c)
program: $(sources:.c=.o)
	$(CC) -o $@ $^
%.o: %.c common.h
	$(CC) -O1 -c -o $@ $<
END
printf '*.o\nprogram\n' >.gitignore
git add .
git commit -qm first

cd /tmp/home/user
git clone -q $origin work
cd work
make -s -j2
test "$(./program)" = 5050
make -q # nothing is to be done: the times of files are in order
sed -i 's/return 100;/return 200;/' dir2/f100.c
make -s
test "$(./program)" = 5150
test "$(git status --porcelain)" = ' M dir2/f100.c'
git commit -qam second
git checkout -q -b other HEAD~1
make -s
test "$(./program)" = 5050
git merge -q main
git gc -q
git fsck --strict --no-progress
cd ..
git clone -q --no-hardlinks work copy
diff -r -x .git -x '*.o' -x program work copy
rm -rf work copy
test "$(ls)" = gitconfig
echo "cloned, built and removed"

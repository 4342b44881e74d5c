/* Mappings, whole-file reads, and output that appears only when it is complete. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"

static char dir[64];

static int enter(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/ns_test_file_XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    char cmd[100];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static const char *at(const char *name)
{
    static char path[4][200];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

static void check_read(const char *path, const char *want)
{
    ns_buf b = { 0 };
    ns_map m;
    assert_int_equal(ns_file_read(path, 100, &b, NULL), 0);
    assert_int_equal(b.len, strlen(want));
    if (b.len)
        assert_memory_equal(b.data, want, b.len);
    ns_buf_release(&b);
    for (int load = 0; load < 2; load++) {
        assert_int_equal(load ? ns_map_load(&m, path, NULL) : ns_map_open(&m, path, NULL), 0);
        assert_int_equal(m.size, strlen(want));
        if (m.size)
            assert_memory_equal(m.data, want, m.size);
        ns_map_close(&m);
        assert_null(m.data);
    }
}

static void write_then_read(void **state)
{
    (void)state;
    const char *p = at("a");
    assert_int_equal(ns_file_write(p, "hello", 5, NULL), 0);
    check_read(p, "hello");
    assert_false(ns_file_exists(at("a.partial")));
    assert_int_equal(ns_file_write(p, "", 0, NULL), 0); /* replaces; an empty file maps to nothing */
    check_read(p, "");
    assert_int_equal(ns_file_write(p, "again", 5, NULL), 0);
    assert_int_equal(ns_file_copy(p, at("b"), NULL), 0);
    check_read(at("b"), "again");
    assert_true(ns_file_exists(p) && !ns_dir_exists(p) && ns_dir_exists(dir) && !ns_file_exists(dir));
}

static void read_failures(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_buf b = { 0 };
    ns_map m;
    assert_int_equal(ns_map_open(&m, at("none"), &e), -1);
    assert_non_null(strstr(e.msg, "none: No such file"));
    assert_int_equal(e.code, NS_EIO);
    ns_map_close(&m); /* closing what failed to open is harmless */
    e = (ns_err){ 0 };
    assert_int_equal(ns_map_load(&m, dir, &e), -1);
    assert_non_null(strstr(e.msg, "not a regular file"));
    e = (ns_err){ 0 };
    assert_int_equal(mkfifo(at("fifo"), 0600), 0);
    assert_int_equal(ns_map_open(&m, at("fifo"), &e), -1); /* and does not wait for a writer */
    e = (ns_err){ 0 };
    assert_int_equal(ns_file_read(dir, 100, &b, &e), -1);
    assert_int_equal(ns_file_write(at("c"), "0123456789", 10, NULL), 0);
    e = (ns_err){ 0 };
    assert_int_equal(ns_file_read(at("c"), 9, &b, &e), -1);
    assert_non_null(strstr(e.msg, "larger than 9 bytes"));
    ns_buf_release(&b);
    assert_int_equal(ns_file_read(at("c"), 10, &b, NULL), 0);
    ns_buf_release(&b);
}

static void uncommitted_output(void **state)
{
    (void)state;
    ns_outfile o;
    assert_int_equal(ns_file_write(at("keep"), "old", 3, NULL), 0);
    assert_int_equal(ns_outfile_open(&o, at("keep"), NULL), 0);
    assert_int_equal(ns_outfile_write(&o, "new", 3, NULL), 0);
    assert_true(ns_file_exists(at("keep.partial")));
    ns_outfile_release(&o);
    ns_outfile_release(&o);
    assert_false(ns_file_exists(at("keep.partial")));
    check_read(at("keep"), "old");
    ns_err e = { 0 };
    assert_int_equal(ns_outfile_open(&o, at("no/such"), &e), -1);
    assert_non_null(strstr(e.msg, "no/such"));
}

/* A full disk must surface even when its error was met while flushing, and nothing may remain. */
static void disk_full(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        struct rlimit lim = { 100000, 100000 };
        static char block[70000];
        ns_outfile o;
        ns_err e = { 0 };
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &lim);
        if (ns_outfile_open(&o, at("full"), &e) != 0)
            _exit(1);
        bool failed = ns_outfile_write(&o, block, sizeof block, &e) != 0;
        failed = ns_outfile_write(&o, block, sizeof block, &e) != 0 || failed;
        failed = ns_outfile_commit(&o, NULL) != 0 || !failed; /* even a caller that ignores the write's error sees commit's */
        _exit(failed && strstr(e.msg, "full.partial: write: File too large") && !ns_file_exists(at("full")) ? 0 : 2);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_false(ns_file_exists(at("full.partial")));
}

static void output_folder(void **state)
{
    (void)state;
    ns_outdir d;
    ns_err e = { 0 };
    assert_int_equal(ns_outdir_open(&d, at("out/"), NULL), 0); /* a trailing slash is dropped */
    ns_buf p = { 0 };
    assert_int_equal(ns_file_write(ns_path_join(&p, d.tmp, "x"), "1", 1, NULL), 0);
    assert_false(ns_dir_exists(at("out")));
    assert_int_equal(ns_outdir_commit(&d, NULL), 0);
    check_read(at("out/x"), "1");
    assert_int_equal(ns_outdir_open(&d, at("out"), &e), -1);
    assert_non_null(strstr(e.msg, "exists already"));
    check_read(at("out/x"), "1");
    ns_outdir_release(&d);

    assert_int_equal(mkdir(at("empty"), 0700), 0); /* an empty folder may be given */
    assert_int_equal(ns_outdir_open(&d, at("empty"), NULL), 0);
    assert_int_equal(ns_file_write(ns_path_join(&p, d.tmp, "x"), "1", 1, NULL), 0);
    ns_outdir_release(&d);
    assert_false(ns_dir_exists(at("empty.partial")));
    ns_buf_release(&p);
}

/* An interrupted run's folder is replaced, but a symbolic link in its place is not followed. */
static void stale_output(void **state)
{
    (void)state;
    ns_outdir d;
    assert_int_equal(mkdir(at("s.partial"), 0700), 0);
    assert_int_equal(ns_file_write(at("s.partial/old"), "1", 1, NULL), 0);
    assert_int_equal(ns_outdir_open(&d, at("s"), NULL), 0);
    assert_false(ns_file_exists(at("s.partial/old")));
    ns_outdir_release(&d);
    assert_int_equal(mkdir(at("mine"), 0700), 0);
    assert_int_equal(ns_file_write(at("mine/data"), "1", 1, NULL), 0);
    assert_int_equal(symlink(at("mine"), at("s.partial")), 0);
    assert_int_equal(ns_outdir_open(&d, at("s"), NULL), -1);
    check_read(at("mine/data"), "1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(write_then_read), cmocka_unit_test(read_failures), cmocka_unit_test(uncommitted_output),
        cmocka_unit_test(disk_full),       cmocka_unit_test(output_folder), cmocka_unit_test(stale_output),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}

/* The first process of the emulated Linux: runs the command in /command, a list of strings that ends with an empty one,
 * in the directory and with the environment that precede it there, and prints its exit status between our marks. */
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory_map.h"

enum { MOST = 200 };

/* Takes strings up to an empty one; returns what follows it. */
static char *take(char *text, char **list)
{
    size_t n = 0;
    for (; *text && n < MOST - 1; text += strlen(text) + 1)
        list[n++] = text;
    list[n] = NULL;
    return text + 1;
}

int main(void)
{
    static char text[65536], *directory[MOST], *environment[MOST], *command[MOST];
    FILE *file = fopen("/command", "rb");
    if (!file || !fread(text, 1, sizeof text - 2, file))
        return 1;
    take(take(take(text, directory), environment), command);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    printf(MARK_BEGIN);
    fflush(stdout);
    if (fork() == 0) {
        if (chdir(directory[0]) == 0)
            execve(command[0], command, environment);
        perror(command[0]);
        _exit(127);
    }
    int status = 0;
    wait(&status);
    printf(MARK_END "%x\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    fflush(stdout);
    pause();
}

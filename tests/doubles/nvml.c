/* A double of NVIDIA's libnvidia-ml.so.1, at the ABI: it reports what the file named in NVML_DOUBLE says.
 *
 * Lines: "device NAME unified|own", then its processes "compute PID BYTES" or "graphics PID BYTES"; "fail FUNCTION CODE";
 * "hang FUNCTION"; after a device "clock MHZ", what its SM clock would be without a limit, and "heat DEGREES PERCENT
 * REASONS", its temperature, how busy it is, and the bits of why its clock is not higher. Read anew at each call. What
 * is not in the file is as on a machine with a driver and no GPU. A limit of the clock is kept, by all processes, in the
 * file NVML_DOUBLE.INDEX, as the driver keeps it; removing that file is loading the driver anew.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct process {
    unsigned int pid;
    unsigned long long bytes;
    unsigned int gpu_instance, compute_instance;
};
struct memory {
    unsigned long long total, free, used;
};

static FILE *script(void) {
    const char *name = getenv("NVML_DOUBLE");
    return name ? fopen(name, "r") : NULL;
}

/* What the file says of a function itself: an error code, or that it never returns. */
static int trouble(const char *function) {
    char line[256], what[128];
    int code = 0, number;
    FILE *file = script();
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "fail %127s %d", what, &number) == 2 && !strcmp(what, function))
            code = number;
        if (sscanf(line, "hang %127s", what) == 1 && !strcmp(what, function))
            for (;;)
                pause();
    }
    if (file)
        fclose(file);
    return code;
}

/* The device of a number: its name and whether it is unified; the number of devices where there are fewer. */
static int device(int wanted, char *name, char *kind) {
    char line[256];
    int seen = 0;
    FILE *file = script();
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "device %95s %31s", name, kind) == 2 && seen++ == wanted)
            break;
    if (file)
        fclose(file);
    return seen;
}

static int list(int wanted, const char *kind, unsigned int *count, struct process *into) {
    char line[256], what[32], name[96];
    unsigned int room = *count, found = 0, pid;
    unsigned long long bytes;
    int number = -1;
    FILE *file = script();
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "device %95s %31s", name, what) == 2)
            number++;
        else if (number == wanted && sscanf(line, "%31s %u %llu", what, &pid, &bytes) == 3 && !strcmp(what, kind)) {
            if (found < room)
                into[found] = (struct process){pid, bytes, ~0u, ~0u};
            found++;
        }
    }
    if (file)
        fclose(file);
    *count = found;
    return found > room ? 7 : 0;
}

int nvmlInit_v2(void) { return trouble("nvmlInit_v2"); }

int nvmlDeviceGetCount_v2(unsigned int *count) {
    char name[96], kind[32];
    *count = (unsigned int)device(1 << 20, name, kind);
    return trouble("nvmlDeviceGetCount_v2");
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
    *handle = (void *)(size_t)(index + 1);
    return trouble("nvmlDeviceGetHandleByIndex_v2");
}

int nvmlDeviceGetName(void *handle, char *into, unsigned int length) {
    char name[96] = "", kind[32];
    device((int)(size_t)handle - 1, name, kind);
    snprintf(into, length, "%s", name);
    return trouble("nvmlDeviceGetName");
}

int nvmlDeviceGetMemoryInfo(void *handle, struct memory *into) {
    char name[96], kind[32] = "";
    device((int)(size_t)handle - 1, name, kind);
    if (!strcmp(kind, "unified"))
        return 3;
    *into = (struct memory){80ull << 30, 40ull << 30, 40ull << 30};
    return trouble("nvmlDeviceGetMemoryInfo");
}

/* NVML_CLOCK_SM is 1. A GPU without memory of its own does not tell its clocks here. */
static int clock_of(void *handle, int type, unsigned int *into, unsigned int value) {
    char name[96], kind[32] = "";
    device((int)(size_t)handle - 1, name, kind);
    if (type != 1 || !strcmp(kind, "unified"))
        return 3;
    *into = value;
    return 0;
}

/* The file that keeps a device's limit. */
static void limit_file(void *handle, char *into, size_t length) {
    const char *name = getenv("NVML_DOUBLE");
    snprintf(into, length, "%s.%d", name ? name : "/nonexistent", (int)(size_t)handle - 1);
}

int nvmlDeviceSetGpuLockedClocks(void *handle, unsigned int low, unsigned int high) {
    char name[512];
    int code = trouble("nvmlDeviceSetGpuLockedClocks");
    FILE *file;
    if (code)
        return code;
    limit_file(handle, name, sizeof name);
    if (low > high || !(file = fopen(name, "w")))
        return 2;
    fprintf(file, "%u %u\n", low, high);
    fclose(file);
    return 0;
}

int nvmlDeviceResetGpuLockedClocks(void *handle) {
    char name[512];
    int code = trouble("nvmlDeviceResetGpuLockedClocks");
    limit_file(handle, name, sizeof name);
    if (!code)
        unlink(name);
    return code;
}

/* What the clock is: what the script says, no more than the limit. */
static unsigned int clock_now(void *handle) {
    char line[256], name[512], what[32];
    unsigned int value = 345, low, high, found;
    int number = -1;
    FILE *file = script();
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "device %255s %31s", name, what) == 2)
            number++;
        else if (number == (int)(size_t)handle - 1 && sscanf(line, "clock %u", &found) == 1)
            value = found;
    }
    if (file)
        fclose(file);
    limit_file(handle, name, sizeof name);
    if ((file = fopen(name, "r"))) {
        if (fscanf(file, "%u %u", &low, &high) == 2 && value > high)
            value = high;
        fclose(file);
    }
    return value;
}

int nvmlDeviceGetClockInfo(void *handle, int type, unsigned int *into) {
    int code = trouble("nvmlDeviceGetClockInfo");
    return code ? code : clock_of(handle, type, into, clock_now(handle));
}

int nvmlDeviceGetMaxClockInfo(void *handle, int type, unsigned int *into) {
    return clock_of(handle, type, into, 1980);
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned int *count, struct process *into) {
    int code = trouble("nvmlDeviceGetComputeRunningProcesses_v3");
    return code ? code : list((int)(size_t)handle - 1, "compute", count, into);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned int *count, struct process *into) {
    int code = trouble("nvmlDeviceGetGraphicsRunningProcesses_v3");
    return code ? code : list((int)(size_t)handle - 1, "graphics", count, into);
}

/* A figure of a "heat" line: 0 degrees, 1 percent, 2 reasons. Not supported where the script has none. */
static int heat(void *handle, int which, unsigned long long *into) {
    char line[256], name[96], kind[32];
    unsigned long long found[3];
    int number = -1, code = 3;
    FILE *file = script();
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "device %95s %31s", name, kind) == 2)
            number++;
        else if (number == (int)(size_t)handle - 1 &&
                 sscanf(line, "heat %llu %llu %llu", &found[0], &found[1], &found[2]) > which) {
            *into = found[which];
            code = 0;
        }
    }
    if (file)
        fclose(file);
    return code;
}

/* NVML_TEMPERATURE_GPU is 0. */
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned int *into) {
    unsigned long long value = 0;
    int code = sensor ? 2 : heat(handle, 0, &value);
    *into = (unsigned int)value;
    return code;
}

int nvmlDeviceGetUtilizationRates(void *handle, unsigned int *into) {
    unsigned long long value = 0;
    int code = heat(handle, 1, &value);
    into[0] = (unsigned int)value;
    into[1] = 0;
    return code;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *into) {
    int code = trouble("nvmlDeviceGetCurrentClocksThrottleReasons");
    return code ? code : heat(handle, 2, into);
}

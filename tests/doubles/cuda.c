/* A double of CUDA's driver library at its ABI, for machines without a GPU: memory is the host's, as on a GB10.
 *
 * cuMemAlloc takes anonymous memory of the calling process, so RSS and the cgroup see it here, which they do not with the
 * real driver: what depends on that is judged on real GPUs only. CUDA_DOUBLE=fail makes cuMemAlloc return 2
 * (CUDA_ERROR_OUT_OF_MEMORY); CUDA_DOUBLE=hang makes cuCtxSynchronize never return.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int is(const char *wanted)
{
    const char *mode = getenv("CUDA_DOUBLE");
    return mode && strcmp(mode, wanted) == 0;
}

int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(intptr_t)(device + 1); return 0; }
int cuCtxSetCurrent(void *context) { return context ? 0 : 201; }

int cuMemAlloc_v2(uint64_t *address, size_t size)
{
    if (is("fail"))
        return 2;
    void *memory = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *address = (uint64_t)(intptr_t)memory;
    return memory == MAP_FAILED ? 2 : 0;
}

int cuMemAllocManaged(uint64_t *address, size_t size, unsigned flags) { return flags == 1 ? cuMemAlloc_v2(address, size) : 1; }
int cuMemsetD8_v2(uint64_t address, unsigned char value, size_t size) { memset((void *)(intptr_t)address, value, size); return 0; }

int cuCtxSynchronize(void)
{
    while (is("hang"))
        pause();
    return 0;
}

int cuMemGetInfo_v2(size_t *free, size_t *total)
{
    *free = (size_t)sysconf(_SC_AVPHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    *total = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    return 0;
}

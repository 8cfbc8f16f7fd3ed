// A guest without an operating system: it does one order after the other.
//
// It runs in 64-bit mode with guest-physical addresses as addresses, interrupts off, no stack and
// no interrupt table: any fault ends it, which the host sees. Each order, its operands and its
// results are 64-bit words in the mailbox, whose address is in RBX from the start and stays there.
// An OUT to the report port ends each order; the host writes the next one before it resumes.
//
// Loads and stores are plain moves, which any KVM can also execute by itself; the one exception is
// the order that says so.

    .pushsection .rodata.nosnoop_guest, "a", @progbits
    .globl nosnoop_guest_start
    .globl nosnoop_guest_end
nosnoop_guest_start:
next_order:
    mov     rax, [rbx + {ORDER}]
    cmp     rax, {SET_PAT}
    je      set_pat
    cmp     rax, {MAP}
    je      map
    cmp     rax, {UNMAP}
    je      unmap
    cmp     rax, {FILL}
    je      fill
    cmp     rax, {FILL_MOVQ}
    je      fill_movq
    cmp     rax, {CHECK}
    je      check
    cmp     rax, {LOAD}
    je      load
    cmp     rax, {SUBMIT}
    je      submit
    mov     qword ptr [rbx + {STATUS}], {BAD_ORDER}
    jmp     report

done:
    mov     qword ptr [rbx + {STATUS}], {DONE}
report:
    mov     edx, {REPORT_PORT}
    out     dx, al
    jmp     next_order

// Writes IA32_PAT. A = the value. Result: what it reads back as.
set_pat:
    mov     ecx, 0x277
    mov     eax, [rbx + {A}]
    mov     edx, [rbx + {A} + 4]
    wrmsr
    rdmsr
    mov     [rbx + {RESULT}], eax
    mov     [rbx + {RESULT} + 4], edx
    jmp     done

// Maps pages with the memory type that the device has announced. A = address, B = physical
// address, C = how many pages (all in one page table), D = where the device's 32-bit map_info lies,
// E = three pages for page tables.
map:
    mov     rax, [rbx + {D}]
    mov     eax, [rax]
    // Present and writable, and the bits that select the type in the page attribute table.
    mov     r8d, 0x03
    cmp     eax, 1
    je      have_type
    mov     r8d, 0x13
    cmp     eax, 2
    je      have_type
    mov     r8d, 0x0b
    cmp     eax, 3
    je      have_type
    mov     qword ptr [rbx + {STATUS}], {BAD_MAP_INFO}
    jmp     report
have_type:
    mov     rdi, [rbx + {E}]
    mov     ecx, 3 * 512
clear_tables:
    mov     qword ptr [rdi], 0
    add     rdi, 8
    dec     ecx
    jnz     clear_tables
    mov     rsi, [rbx + {E}]
    mov     r9, [rbx + {A}]
    mov     rdi, cr3
    and     rdi, -4096
    mov     rcx, r9
    shr     rcx, 39
    and     ecx, 511
    lea     rax, [rsi + 0x0003]
    mov     [rdi + rcx * 8], rax
    mov     rcx, r9
    shr     rcx, 30
    and     ecx, 511
    lea     rax, [rsi + 0x1003]
    mov     [rsi + rcx * 8], rax
    mov     rcx, r9
    shr     rcx, 21
    and     ecx, 511
    lea     rax, [rsi + 0x2003]
    mov     [rsi + rcx * 8 + 0x1000], rax
    mov     rcx, r9
    shr     rcx, 12
    and     ecx, 511
    lea     rdi, [rsi + rcx * 8 + 0x2000]
    mov     rax, [rbx + {B}]
    or      rax, r8
    mov     rcx, [rbx + {C}]
map_page:
    mov     [rdi], rax
    add     rdi, 8
    add     rax, 0x1000
    dec     rcx
    jnz     map_page
    jmp     flush_translations

// Takes away what MAP has mapped. A = the address.
unmap:
    mov     rdi, cr3
    and     rdi, -4096
    mov     rcx, [rbx + {A}]
    shr     rcx, 39
    and     ecx, 511
    mov     qword ptr [rdi + rcx * 8], 0
flush_translations:
    mov     rax, cr3
    mov     cr3, rax
    jmp     done

// Fills memory. A = address, B = how many 64-bit words, C = the first word, D = what each word has
// more than the one before.
fill:
    mov     rdi, [rbx + {A}]
    mov     rcx, [rbx + {B}]
    mov     rax, [rbx + {C}]
    mov     rdx, [rbx + {D}]
fill_word:
    mov     [rdi], rax
    add     rdi, 8
    add     rax, rdx
    dec     rcx
    jnz     fill_word
    // What is gathered in write-combining buffers goes out.
    sfence
    jmp     done

// As FILL, by stores from a vector register: a KVM that executes them by itself cannot.
fill_movq:
    mov     rdi, [rbx + {A}]
    mov     rcx, [rbx + {B}]
    mov     rax, [rbx + {C}]
    mov     rdx, [rbx + {D}]
fill_vector:
    movq    xmm0, rax
    movq    qword ptr [rdi], xmm0
    add     rdi, 8
    add     rax, rdx
    dec     rcx
    jnz     fill_vector
    sfence
    jmp     done

// Compares memory with what FILL writes. Operands as FILL. Results: how many words differ, and the
// number of the first that does.
check:
    mov     rdi, [rbx + {A}]
    mov     rcx, [rbx + {B}]
    mov     rax, [rbx + {C}]
    mov     rdx, [rbx + {D}]
    mov     r8d, 0
    mov     r9d, 0
    mov     r10d, 0
check_word:
    mov     r11, [rdi]
    cmp     r11, rax
    je      same_word
    cmp     r8, 0
    jne     not_first
    mov     r9, r10
not_first:
    inc     r8
same_word:
    inc     r10
    add     rdi, 8
    add     rax, rdx
    dec     rcx
    jnz     check_word
    mov     [rbx + {RESULT}], r8
    mov     [rbx + {RESULT2}], r9
    jmp     done

// Loads one word. A = address. Result: the word.
load:
    mov     rdi, [rbx + {A}]
    mov     rax, [rdi]
    mov     [rbx + {RESULT}], rax
    jmp     done

// Hands one request to a device and waits for the answer (virtio 1.4, "Split Virtqueues"). A = the
// words that describe the queue, B = request, C = its bytes, D = room for the answer, E = its
// bytes. Results: the id and the length in the used ring.
submit:
    mov     rsi, [rbx + {A}]
    // Descriptor 0 is the request and goes on at 1, the room, which the device writes.
    mov     rdi, [rsi + {Q_DESCRIPTORS}]
    mov     rax, [rbx + {B}]
    mov     [rdi], rax
    mov     eax, [rbx + {C}]
    mov     [rdi + 8], eax
    mov     dword ptr [rdi + 12], 0x00010001
    mov     rax, [rbx + {D}]
    mov     [rdi + 16], rax
    mov     eax, [rbx + {E}]
    mov     [rdi + 24], eax
    mov     dword ptr [rdi + 28], 0x00000002
    // The head, 0, goes into the available ring, and then the index says so.
    mov     rdi, [rsi + {Q_AVAILABLE}]
    mov     rax, [rsi + {Q_NEXT_AVAILABLE}]
    mov     rcx, rax
    and     rcx, [rsi + {Q_MASK}]
    mov     word ptr [rdi + rcx * 2 + 4], 0
    sfence
    inc     rax
    mov     [rsi + {Q_NEXT_AVAILABLE}], rax
    mov     [rdi + 2], ax
    mfence
    // No feature that suppresses notifications is in use.
    mov     edx, {KICK_PORT}
    out     dx, al
wait_used:
    mov     rdi, [rsi + {Q_USED}]
    movzx   eax, word ptr [rdi + 2]
    mov     ecx, [rsi + {Q_NEXT_USED}]
    cmp     ax, cx
    jne     is_used
    // The host resumes after the device's interrupt.
    hlt
    jmp     wait_used
is_used:
    and     ecx, [rsi + {Q_MASK}]
    mov     eax, [rdi + rcx * 8 + 4]
    mov     [rbx + {RESULT}], rax
    mov     eax, [rdi + rcx * 8 + 8]
    mov     [rbx + {RESULT2}], rax
    mov     rax, [rsi + {Q_NEXT_USED}]
    inc     rax
    mov     [rsi + {Q_NEXT_USED}], rax
    jmp     done
nosnoop_guest_end:
    .popsection

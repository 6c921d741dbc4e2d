//! An assembler for the few eBPF instructions that the steering program is made of.
//!
//! Encoding: the kernel's Documentation/bpf/standardization/instruction-set.rst. Jumps go forward to labels; the verifier of
//! the kernel, not this file, says whether a program is sound.

/// A register: R0 is a result, R1 to R5 are arguments (lost in calls), R6 to R9 survive calls.
#[derive(Clone, Copy)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    /// The frame pointer; the stack lies below it.
    R10 = 10,
}

/// Bytes of a load.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Size {
    /// Four.
    Word = 0x00,
    /// Two.
    Half = 0x08,
    /// One.
    Byte = 0x10,
}

/// When a jump is taken.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum When {
    Always = 0x00,
    Equal = 0x10,
    NotEqual = 0x50,
}

const LD_IMM64: u8 = 0x18;
const LDX_MEM: u8 = 0x61;
const STX_MEM_WORD: u8 = 0x63;
const ADD64_IMM: u8 = 0x07;
const MOV64_IMM: u8 = 0xb7;
const MOV64_REG: u8 = 0xbf;
const JMP_IMM: u8 = 0x05;
const JMP_ABOVE_REG: u8 = 0x2d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// In the source register of LD_IMM64: the immediate is the fd of a map.
const PSEUDO_MAP_FD: u8 = 1;

/// A place to jump to.
#[derive(Clone, Copy)]
pub(crate) struct Label(usize);

/// A program that is being written.
#[derive(Default)]
pub(crate) struct Asm {
    code: Vec<u64>,
    /// Where each label is, once it was placed.
    labels: Vec<Option<usize>>,
    /// Jumps, and where they go.
    jumps: Vec<(usize, Label)>,
}

impl Asm {
    fn push(&mut self, opcode: u8, dst: u8, src: u8, offset: i16, imm: i32) {
        // struct bpf_insn: code, dst and src in four bits each (dst in the low ones on little-endian machines), off, imm.
        let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
        let [o0, o1] = offset.to_ne_bytes();
        let [i0, i1, i2, i3] = imm.to_ne_bytes();
        self.code.push(u64::from_ne_bytes([opcode, registers, o0, o1, i0, i1, i2, i3]));
    }

    /// A label to be placed later.
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label is here.
    pub(crate) fn place(&mut self, label: Label) {
        debug_assert!(self.labels[label.0].is_none(), "a label is placed once");
        self.labels[label.0] = Some(self.code.len());
    }

    /// `dst = value`
    pub(crate) fn set(&mut self, dst: Reg, value: i32) {
        self.push(MOV64_IMM, dst as u8, 0, 0, value);
    }

    /// `dst = src`
    pub(crate) fn copy(&mut self, dst: Reg, src: Reg) {
        self.push(MOV64_REG, dst as u8, src as u8, 0, 0);
    }

    /// `dst += value`
    pub(crate) fn add(&mut self, dst: Reg, value: i32) {
        self.push(ADD64_IMM, dst as u8, 0, 0, value);
    }

    /// `dst = *(base + offset)`
    pub(crate) fn load(&mut self, size: Size, dst: Reg, base: Reg, offset: i16) {
        self.push(LDX_MEM | size as u8, dst as u8, base as u8, offset, 0);
    }

    /// `*(u32 *)(base + offset) = src`
    pub(crate) fn store_word(&mut self, base: Reg, offset: i16, src: Reg) {
        self.push(STX_MEM_WORD, base as u8, src as u8, offset, 0);
    }

    /// `dst = the map behind this fd`
    pub(crate) fn map(&mut self, dst: Reg, fd: i32) {
        self.push(LD_IMM64, dst as u8, PSEUDO_MAP_FD, 0, fd);
        self.code.push(0);
    }

    /// Jumps when `reg` is, or is not, `value`.
    pub(crate) fn jump(&mut self, when: When, reg: Reg, value: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(JMP_IMM | when as u8, reg as u8, 0, 0, value);
    }

    /// Jumps.
    pub(crate) fn go(&mut self, to: Label) {
        self.jump(When::Always, Reg::R0, 0, to);
    }

    /// Jumps when `reg > than`, without sign.
    pub(crate) fn jump_above(&mut self, reg: Reg, than: Reg, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(JMP_ABOVE_REG, reg as u8, than as u8, 0, 0);
    }

    /// Calls a helper by its number in include/uapi/linux/bpf.h.
    pub(crate) fn call(&mut self, helper: i32) {
        self.push(CALL, 0, 0, 0, helper);
    }

    /// Returns R0.
    pub(crate) fn exit(&mut self) {
        self.push(EXIT, 0, 0, 0, 0);
    }

    /// The program, its jumps resolved.
    pub(crate) fn finish(mut self) -> Vec<u64> {
        for (at, label) in std::mem::take(&mut self.jumps) {
            let target = self.labels[label.0].expect("every label is placed");
            let offset = i16::try_from(target as isize - at as isize - 1).expect("a short program");
            let mut bytes = self.code[at].to_ne_bytes();
            bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
            self.code[at] = u64::from_ne_bytes(bytes);
        }
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clang emits for the same, as bytes of a little-endian object file.
    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        let mut asm = Asm::default();
        let end = asm.label();
        asm.load(Size::Half, Reg::R5, Reg::R2, 12);
        asm.jump(When::NotEqual, Reg::R5, 0x0608, end);
        asm.copy(Reg::R4, Reg::R2);
        asm.add(Reg::R4, 28);
        asm.jump_above(Reg::R4, Reg::R3, end);
        asm.store_word(Reg::R10, -16, Reg::R4);
        asm.map(Reg::R1, 7);
        asm.call(1);
        asm.place(end);
        asm.exit();
        let bytes: Vec<[u8; 8]> = asm.finish().iter().map(|code| code.to_le_bytes()).collect();
        let expected: [[u8; 8]; 10] = [
            [0x69, 0x25, 12, 0, 0, 0, 0, 0],
            [0x55, 0x05, 7, 0, 0x08, 0x06, 0, 0],
            [0xbf, 0x24, 0, 0, 0, 0, 0, 0],
            [0x07, 0x04, 0, 0, 28, 0, 0, 0],
            [0x2d, 0x34, 4, 0, 0, 0, 0, 0],
            [0x63, 0x4a, 0xf0, 0xff, 0, 0, 0, 0],
            [0x18, 0x11, 0, 0, 7, 0, 0, 0],
            [0; 8],
            [0x85, 0, 0, 0, 1, 0, 0, 0],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes, expected);
    }
}

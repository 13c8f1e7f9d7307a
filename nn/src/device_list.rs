//! Which device the tensors of a training live on: its name as a person writes it, the back ends that this build has, and
//! what this machine shows of them.
//!
//! A back end is asked for its devices before anything else of it is touched: without a driver it answers with none, where
//! its first tensor would end the process.

use burn::tensor::{Device, FloatDType};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A back end of burn that runs on a device of its own: each is a cargo feature of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GpuBackend {
    /// NVIDIA cards, through the driver alone.
    Cuda,
    /// Cards of any make, through SPIR-V.
    Vulkan,
    /// Apple's cards.
    Metal,
    /// AMD cards, through HIP.
    Rocm,
}

impl GpuBackend {
    /// Every one, in the order in which they are listed.
    pub const ALL: [Self; 4] = [Self::Cuda, Self::Vulkan, Self::Metal, Self::Rocm];

    /// Name of its cargo feature, and of its devices before the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Rocm => "rocm",
        }
    }

    /// Whether this binary was built with it.
    pub const fn in_this_build(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Rocm => cfg!(feature = "rocm"),
        }
    }

    /// Its devices in the driver's order, none of them opened; none without a driver.
    ///
    /// # Errors
    /// A driver that is there and fails.
    fn devices(self) -> Result<Vec<Device>, DeviceError> {
        answered(DeviceName::Gpu(self, 0), || self.enumerated())
    }

    /// [`Self::devices`]; panics where the driver fails.
    fn enumerated(self) -> Vec<Device> {
        #[cfg(any(feature = "cuda", feature = "vulkan", feature = "metal", feature = "rocm"))]
        use burn::tensor::DeviceType;
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::enumerate(DeviceType::Cuda).to_vec(),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Device::enumerate(DeviceType::Vulkan).to_vec(),
            #[cfg(feature = "metal")]
            Self::Metal => Device::enumerate(DeviceType::Metal).to_vec(),
            #[cfg(feature = "rocm")]
            Self::Rocm => Device::enumerate(DeviceType::Rocm).to_vec(),
            #[cfg(not(all(feature = "cuda", feature = "vulkan", feature = "metal", feature = "rocm")))]
            _ => Vec::new(),
        }
    }
}

/// The name of a device: `cpu`, `flex`, or a back end and a number as in `cuda:0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceName {
    /// The kernels of this project on the CPU.
    #[default]
    Cpu,
    /// Plain operations of burn on the CPU: slow, and the reference of what a GPU does.
    Flex,
    /// The device of this number, as `pipeline doctor` lists them.
    Gpu(GpuBackend, usize),
}

impl DeviceName {
    /// A handle to the device, whose driver has answered.
    ///
    /// # Errors
    /// The build has no such back end, the machine no such device, CUDA's mathematical library is missing, or the driver
    /// fails: all of this is known before the first kernel.
    pub fn open(self) -> Result<Device, DeviceError> {
        let Self::Gpu(backend, number) = self else { return Ok(Device::flex()) };
        if !backend.in_this_build() {
            return Err(DeviceError::NotInThisBuild { device: self, backend: backend.name() });
        }
        let mut devices = backend.devices()?;
        if number >= devices.len() {
            return Err(DeviceError::NoSuchDevice { device: self, backend: backend.name(), found: devices.len() });
        }
        if backend == GpuBackend::Cuda {
            libdevice()?;
        }
        let device = devices.swap_remove(number);
        answered(self, || device.supports_dtype(FloatDType::F32))?;
        Ok(device)
    }

    /// Every device that [`Self::open`] may find here, the CPU first. Where a driver fails, its first device stands for all:
    /// to open it says why.
    pub fn found() -> Vec<Self> {
        let numbered = |backend: GpuBackend| {
            let count = backend.devices().map_or(1, |devices| devices.len());
            (0..count).map(move |number| Self::Gpu(backend, number))
        };
        [Self::Cpu, Self::Flex].into_iter().chain(GpuBackend::ALL.into_iter().flat_map(numbered)).collect()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Flex => formatter.write_str("flex"),
            Self::Gpu(backend, number) => write!(formatter, "{}:{number}", backend.name()),
        }
    }
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let named = |backend: &GpuBackend| {
            let number = text.strip_prefix(backend.name())?.strip_prefix(':')?;
            // `+1` and `01` would be second spellings of one device.
            let number = number.parse().ok().filter(|parsed: &usize| parsed.to_string() == number)?;
            Some(Self::Gpu(*backend, number))
        };
        match text {
            "cpu" => Ok(Self::Cpu),
            "flex" => Ok(Self::Flex),
            _ => GpuBackend::ALL.iter().find_map(named).ok_or_else(|| DeviceError::Unknown(text.to_owned())),
        }
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceError;

    fn try_from(text: String) -> Result<Self, DeviceError> {
        text.parse()
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.to_string()
    }
}

/// Why a device cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No name of a device.
    #[error(
        "unknown device {0:?}: write cpu, flex, or a back end and the number of a device (cuda:0, vulkan:0, metal:0, rocm:0)"
    )]
    Unknown(String),
    /// The feature was not compiled in.
    #[error(
        "device {device}: this build has no {backend}. Build one with `{}` (docs/gpu.md), or write cpu",
        build_command(.backend)
    )]
    NotInThisBuild {
        /// As it was asked for.
        device: DeviceName,
        /// The cargo feature.
        backend: &'static str,
    },
    /// The machine does not have it.
    #[error("device {device}: {}. `pipeline doctor` lists what there is", what_is_there(.backend, *.found))]
    NoSuchDevice {
        /// As it was asked for.
        device: DeviceName,
        /// The back end.
        backend: &'static str,
        /// How many devices it shows.
        found: usize,
    },
    /// CUDA's library of mathematical functions is not there.
    #[error(
        "libdevice.10.bc was not found ({searched}): kernels with exp, log or sin cannot be compiled without it. Install the CUDA toolkit, or set CUDA_PATH to a folder that holds nvvm/libdevice/libdevice.10.bc (docs/gpu.md says where to get the file alone)"
    )]
    NoLibdevice {
        /// Where it was looked for.
        searched: String,
    },
    /// The driver shows the device and fails when it is used.
    #[error("device {device} does not open: {reason}")]
    DoesNotOpen {
        /// As it was asked for.
        device: DeviceName,
        /// In the words of the driver.
        reason: String,
    },
}

fn build_command(backend: &str) -> String {
    match backend {
        "cuda" => "scripts/build-cuda.sh".to_owned(),
        other => format!("cargo build --release --features {other}"),
    }
}

fn what_is_there(backend: &str, found: usize) -> String {
    match found {
        0 => format!("this machine shows no {backend} device: no card, or no driver for it"),
        1 => format!("this machine has one {backend} device, {backend}:0"),
        many => format!("this machine has {many} {backend} devices, {backend}:0 to {backend}:{}", many - 1),
    }
}

/// What an opened device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDescription {
    /// The part as it names itself; empty for a device that does not.
    pub part: String,
    /// What kernels are compiled for, such as `ptx_sm90`; empty where nothing is compiled.
    pub target: String,
    /// Address on the bus (`0000:65:00.0`), by which other tools know the card.
    pub pci_address: Option<String>,
    /// Element types that it computes in: of f32, bf16 and f16.
    pub element_types: Vec<&'static str>,
}

/// Opens a device and asks what it is.
///
/// # Errors
/// Those of [`DeviceName::open`], and a driver that fails.
pub fn describe(name: DeviceName) -> Result<DeviceDescription, DeviceError> {
    let device = name.open()?;
    if name == DeviceName::Cpu {
        let element_types = vec!["f32", "bf16"];
        return Ok(DeviceDescription { part: String::new(), target: String::new(), pci_address: None, element_types });
    }
    answered(name, || description(&device))
}

/// What a device answers to `question`. A driver that fails does so by a panic in burn's own threads.
fn answered<T>(device: DeviceName, question: impl FnOnce() -> T) -> Result<T, DeviceError> {
    catch_unwind(AssertUnwindSafe(question)).map_err(|cause| {
        let said = cause.downcast_ref::<String>().map(String::as_str).or_else(|| cause.downcast_ref::<&str>().copied());
        DeviceError::DoesNotOpen { device, reason: said.unwrap_or("the driver failed").to_owned() }
    })
}

fn description(device: &Device) -> DeviceDescription {
    let types = [("f32", FloatDType::F32), ("bf16", FloatDType::BF16), ("f16", FloatDType::F16)];
    let element_types = types.into_iter().filter(|&(_, kind)| device.supports_dtype(kind)).map(|(name, _)| name);
    let element_types = element_types.collect();
    let (part, target, pci_address) = identity(device).unwrap_or_default();
    DeviceDescription { part, target, pci_address, element_types }
}

/// Part, compilation target and address on the bus.
#[cfg(any(feature = "cuda", feature = "vulkan", feature = "metal", feature = "rocm"))]
fn identity(device: &Device) -> Option<(String, String, Option<String>)> {
    let identity = device.identity()?;
    let address = identity.physical.and_then(|card| card.pci_address);
    Some((identity.name, identity.fingerprint, address.map(|address| address.to_string())))
}

#[cfg(not(any(feature = "cuda", feature = "vulkan", feature = "metal", feature = "rocm")))]
fn identity(_: &Device) -> Option<(String, String, Option<String>)> {
    None
}

/// Where a CUDA toolkit stands when `CUDA_PATH` is not set: the places where the compiler of the kernels looks too.
const CUDA_ROOTS: [&str; 4] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"];

/// CUDA's library of mathematical functions, which every kernel with an `exp` is linked with.
///
/// # Errors
/// It is nowhere.
pub fn libdevice() -> Result<PathBuf, DeviceError> {
    let set = std::env::var_os("CUDA_PATH").map(PathBuf::from);
    libdevice_in(set.as_deref(), &CUDA_ROOTS)
}

fn libdevice_in(cuda_path: Option<&Path>, roots: &[&str]) -> Result<PathBuf, DeviceError> {
    let file = |root: &Path| Some(root.join("nvvm/libdevice/libdevice.10.bc")).filter(|path| path.is_file());
    let missing = |searched: String| DeviceError::NoLibdevice { searched };
    match cuda_path {
        // Set, it is the only place: a fallback here would not be one for the compiler.
        Some(root) => file(root).ok_or_else(|| missing(format!("CUDA_PATH is {}", root.display()))),
        None => roots
            .iter()
            .find_map(|root| file(Path::new(root)))
            .ok_or_else(|| missing(format!("CUDA_PATH is not set, and it is not in {}", roots.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        for text in ["cpu", "flex", "cuda:0", "vulkan:12", "metal:0", "rocm:1"] {
            let name: DeviceName = text.parse().expect("a device");
            assert_eq!(name.to_string(), text);
        }
        for text in ["", "CPU", "cuda", "cuda:", "cuda:+1", "cuda:01", "cuda:-1", "cuda0", "gpu:0", "cpu:0"] {
            assert_eq!(text.parse::<DeviceName>(), Err(DeviceError::Unknown(text.to_owned())));
        }
        let said = DeviceError::Unknown("gpu".to_owned()).to_string();
        assert_eq!(
            said,
            "unknown device \"gpu\": write cpu, flex, or a back end and the number of a device (cuda:0, vulkan:0, metal:0, rocm:0)"
        );
    }

    #[test]
    fn both_kinds_of_cpu_are_always_there() {
        assert_eq!(DeviceName::found()[..2], [DeviceName::Cpu, DeviceName::Flex]);
        assert!(DeviceName::Cpu.open().is_ok());
        let described = describe(DeviceName::Flex).expect("flex opens");
        assert!(described.element_types.contains(&"f32"), "{described:?}");
    }

    #[test]
    fn a_device_that_is_not_there_is_refused_in_words() {
        for backend in GpuBackend::ALL {
            let name = DeviceName::Gpu(backend, 999);
            let said = name.open().expect_err("nobody has a thousand").to_string();
            let wanted = if backend.in_this_build() { "`pipeline doctor` lists" } else { "this build has no" };
            assert!(said.starts_with(&format!("device {name}: ")) && said.contains(wanted), "{said}");
        }
        let absent =
            |found| DeviceError::NoSuchDevice { device: DeviceName::Gpu(GpuBackend::Cuda, 4), backend: "cuda", found };
        assert_eq!(
            absent(0).to_string(),
            "device cuda:4: this machine shows no cuda device: no card, or no driver for it. `pipeline doctor` lists what there is"
        );
        assert!(absent(1).to_string().contains("one cuda device, cuda:0."));
        assert!(absent(3).to_string().contains("3 cuda devices, cuda:0 to cuda:2."));
        let unbuilt = DeviceError::NotInThisBuild { device: DeviceName::Gpu(GpuBackend::Vulkan, 0), backend: "vulkan" };
        assert_eq!(
            unbuilt.to_string(),
            "device vulkan:0: this build has no vulkan. Build one with `cargo build --release --features vulkan` (docs/gpu.md), or write cpu"
        );
    }

    #[test]
    fn a_driver_that_fails_is_told_in_its_own_words() {
        let card = DeviceName::Gpu(GpuBackend::Cuda, 0);
        let broken = || -> u32 { panic!("CUDA_ERROR_{}", "OUT_OF_MEMORY") };
        let said = answered(card, broken).expect_err("it fails").to_string();
        assert_eq!(said, "device cuda:0 does not open: CUDA_ERROR_OUT_OF_MEMORY");
        assert_eq!(answered(card, || 7), Ok(7));
    }

    #[test]
    fn libdevice_is_looked_for_where_the_compiler_looks() {
        let folder = tempfile::tempdir().expect("a folder");
        let (empty, toolkit) = (folder.path().join("empty"), folder.path().join("toolkit"));
        let file = toolkit.join("nvvm/libdevice/libdevice.10.bc");
        std::fs::create_dir_all(file.parent().expect("a folder above")).expect("folders");
        std::fs::write(&file, "BC").expect("a file");
        let roots = [empty.to_str().expect("a path"), toolkit.to_str().expect("a path")];
        assert_eq!(libdevice_in(None, &roots), Ok(file.clone()));
        assert_eq!(libdevice_in(Some(&toolkit), &[]), Ok(file));
        let said = libdevice_in(Some(&empty), &roots).expect_err("CUDA_PATH alone counts").to_string();
        assert!(said.contains(&format!("CUDA_PATH is {}", empty.display())), "{said}");
        let said = libdevice_in(None, &roots[..1]).expect_err("it is not there").to_string();
        assert!(said.contains("CUDA_PATH is not set") && said.contains(roots[0]), "{said}");
    }
}
